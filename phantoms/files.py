"""Phantoms as files in the KiTS and LiTS layouts. Files that exist already are not made again."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from datasets.raw.nifti import Orientation, open_nifti
from phantoms.masks import Masks, read_labels
from phantoms.recipe import Recipe, image_around, synthesise
from utils.errors import UserError
from utils.files import atomic_write, write_json
from utils.parallel import run_in_processes
from utils.progress import progress

# As in the challenges, where the cases from these numbers on have no segmentation.
FIRST_UNLABELLED = {"kits": 210, "lits": 131}
DEFAULT_CASES = 12


@dataclass(frozen=True)
class PhantomJob:
    """One case to make. mask: the file with the real labels around which its image is synthesised, if any."""

    recipe: Recipe
    number: int
    image: Path
    label: Path
    labelled: bool = True
    mask: Path | None = None

    @property
    def header_tag(self) -> str:
        """Stored in the files' headers; it differs for another recipe, number or mask."""
        tag = self.recipe.header_tag(self.number)
        return tag if self.mask is None else f"{tag} {zlib.crc32(self.mask.read_bytes()):08x}"

    def is_done(self) -> bool:
        """Whether the files of this very case exist."""
        paths = [self.image, self.label] if self.labelled else [self.image]
        tag = self.header_tag
        return all(_read_header_tag(path) == tag for path in paths)


@dataclass(frozen=True)
class PhantomSummary:
    """Numbers of cases: all, those made by this run, those without labels."""

    cases: int
    made: int
    unlabelled: int

    def __str__(self) -> str:
        kept = self.cases - self.made
        return f"{self.cases} cases ({self.unlabelled} without labels), {self.made} made, {kept} already there"


def make_phantoms(
    outpath: Path,
    recipe: Recipe,
    cases: int | None = None,
    unlabelled: int = 0,
    workers: int = 1,
    masks: Masks | None = None,
) -> PhantomSummary:
    """Make the cases that do not exist yet.

    cases: how many with labels, None for 12 or for all selected `masks`; unlabelled: how many more without labels.
    """
    if outpath.is_file():
        raise UserError(f"{outpath}: is a file; give a folder as --outpath")
    if masks is not None and recipe.dataset != "kits":
        raise UserError("--masks goes with --dataset kits only")
    if masks is not None and masks.folder.resolve() == outpath.resolve():
        raise UserError(f"{outpath}: is the folder of the masks; give another --outpath")
    mask_paths = None if masks is None else masks.paths(workers)
    jobs = list(_all_jobs(outpath, recipe, cases, unlabelled, mask_paths))
    for job in jobs:
        if not job.labelled and job.label.exists():
            raise UserError(f"{job.label}: exists, but the case is to be unlabelled; give another --outpath")
    remaining = [job for job in jobs if not job.is_done()]
    for _ in progress(
        run_in_processes(make_phantom, remaining, workers), "phantoms", total=len(remaining), unit="case"
    ):
        pass
    if recipe.dataset == "kits":
        names = sorted(path.parent.name for path in outpath.glob("case_*/imaging.nii.gz"))
        write_json(outpath / "kits.json", [{"case_id": name} for name in names])
    return PhantomSummary(len(jobs), len(remaining), unlabelled)


def make_phantom(job: PhantomJob) -> None:
    """Write one case; the labels first, so that an interrupted case is never taken for an unlabelled one."""
    tag = job.header_tag
    if job.mask is not None:
        volume = read_labels(job.mask, job.recipe.size)
        image = image_around(job.recipe, job.number, volume.labels, volume.spacing)
        _write_volume(job.label, volume.labels, volume.affine, tag, volume.header)
        _write_volume(job.image, image, volume.affine, tag, volume.header)
        return
    image, labels, _, affine = synthesise(job.recipe, job.number)
    if job.labelled:
        _write_volume(job.label, labels, affine, tag)
    _write_volume(job.image, image, affine, tag)


def _read_header_tag(path: Path) -> str | None:
    if not path.is_file():
        return None
    try:
        with open_nifti(path) as source:
            return bytes(source.header["descrip"].item()).decode(errors="replace")
    except UserError:
        return None


def _all_jobs(
    outpath: Path, recipe: Recipe, cases: int | None, unlabelled: int, masks: Sequence[Path] | None
) -> Iterator[PhantomJob]:
    numbers: dict[int, Path | None]
    if masks is None:
        numbers = dict.fromkeys(range(DEFAULT_CASES if cases is None else cases))
    else:
        numbers = {int(path.parent.name.removeprefix("case_")): path for path in masks[:cases]}
    for number, mask in numbers.items():
        yield PhantomJob(recipe, number, *_file_paths(outpath, recipe.dataset, number), mask=mask)
    first = max(FIRST_UNLABELLED[recipe.dataset], max(numbers, default=0) + 1)
    for number in range(first, first + unlabelled):
        yield PhantomJob(recipe, number, *_file_paths(outpath, recipe.dataset, number), labelled=False)


def _file_paths(outpath: Path, dataset: str, number: int) -> tuple[Path, Path]:
    """Image and label file of a case."""
    if dataset == "kits":
        folder = outpath / f"case_{number:05d}"
        return folder / "imaging.nii.gz", folder / "segmentation.nii.gz"
    return outpath / f"volume-{number}.nii.gz", outpath / f"segmentation-{number}.nii.gz"


def _write_volume(path: Path, volume: NDArray[Any], affine: NDArray[np.float64], tag: str, header: Any = None) -> None:
    """Write [Z, Y, X] in the order of axes of the affine; `header` provides the other fields of the geometry."""
    nifti = nib.Nifti1Image(Orientation.of(affine).file_view(volume), affine, header)
    nifti.header.set_data_dtype(volume.dtype)
    nifti.header.set_slope_inter(1, 0)
    nifti.header.set_xyzt_units("mm")
    nifti.header["descrip"] = tag.encode()
    with atomic_write(path) as temporary:
        nib.save(nifti, temporary)
