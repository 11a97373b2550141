"""Phantoms as files in the KiTS and LiTS layouts. What is there already is not made again."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from datasets.raw.layout import Case
from datasets.raw.nifti import Orientation, open_nifti
from datasets.raw.volume import read_volume
from datasets.slices.slice_folder import nearest
from phantoms.recipe import Recipe, image_around, synthesise
from utils.errors import UserError
from utils.files import atomic_write, write_json
from utils.progress import progress

FIRST_UNLABELLED = {"kits": 210, "lits": 131}  # the challenges' own unlabelled cases begin there
DEFAULT_CASES = 12

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Masks:
    """A folder of KiTS label volumes to go around, and which of them.

    slices: lowest and highest count; tumour: the least volume in ml.
    """

    folder: Path
    slices: tuple[int, int] | None = None
    tumour: float = 0.0

    def paths(self, workers: int = 1) -> list[Path]:
        """The chosen files; UserError if there are none, or if a file that had to be read is no KiTS label."""
        found = sorted(self.folder.glob("case_*/segmentation.nii.gz"))
        numbered = [path for path in found if path.parent.name.removeprefix("case_").isdigit()]
        if not numbered:
            raise UserError(f"{self.folder}: holds no case_NNNNN/segmentation.nii.gz; give a folder of KiTS labels")
        fitting = for_each(self.fits, numbered, workers, "masks")
        chosen = [path for path, fits in zip(numbered, fitting, strict=True) if fits]
        if not chosen:
            raise UserError(f"{self.folder}: no label volume has as many slices and as much tumour as that")
        return chosen

    def fits(self, path: Path) -> bool:
        """Whether a label volume is one of them; its voxels are read only where they matter."""
        if self.slices is not None:
            with open_nifti(path) as source:
                count = Orientation.of(source.affine).ours(source.shape)[0]
            if not self.slices[0] <= count <= self.slices[1]:
                return False
        if not self.tumour:
            return True
        mask = _read_mask(path)
        return float(np.count_nonzero(mask.labels == 2) * np.prod(mask.spacing)) >= 1000 * self.tumour


@dataclass(frozen=True)
class Job:
    """One case to make: its files, whether it has labels, and the real labels that it goes around, if any."""

    number: int
    image: Path
    label: Path
    labelled: bool = True
    mask: Path | None = None


@dataclass(frozen=True)
class Summary:
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
) -> Summary:
    """Make what is not there yet. `cases` None: 12, or all the chosen `masks`."""
    if masks is not None and masks.folder.resolve() == outpath.resolve():
        raise UserError(f"{outpath}: is the folder of the masks; give another --outpath")
    paths = None if masks is None else masks.paths(workers)
    jobs = list(_plan(outpath, recipe.dataset, cases, unlabelled, paths))
    for job in jobs:
        if not job.labelled and job.label.exists():
            raise UserError(f"{job.label}: exists, but the case is to be unlabelled; give another --outpath")
    todo = [job for job in jobs if not is_made(recipe, job)]
    for_each(partial(make_case, recipe), todo, workers, "phantoms")
    if recipe.dataset == "kits":
        made = sorted(path.parent.name for path in outpath.glob("case_*/imaging.nii.gz"))
        write_json(outpath / "kits.json", [{"case_id": name} for name in made])
    return Summary(len(jobs), len(todo), unlabelled)


def for_each(function: Callable[[A], B], items: Sequence[A], workers: int, text: str) -> list[B]:
    """The function of every item, in that many processes, with a bar."""
    if workers > 1 and len(items) > 1:
        with ProcessPoolExecutor(min(workers, len(items))) as pool:
            return list(progress(pool.map(function, items), text, total=len(items), unit="case"))
    return [function(item) for item in progress(items, text, unit="case")]


def make_case(recipe: Recipe, job: Job) -> None:
    """Write one case: labels first, so that a case cut short is never taken for an unlabelled one."""
    mark = _mark(recipe, job)
    if job.mask is not None:
        mask = _read_mask(job.mask, recipe.size)
        image = image_around(recipe, job.number, mask.labels, mask.spacing)
        _write(job.label, mask.labels, mask.affine, mark, mask.header)
        _write(job.image, image, mask.affine, mark, mask.header)
        return
    image, labels, _, affine = synthesise(recipe, job.number)
    if job.labelled:
        _write(job.label, labels, affine, mark)
    _write(job.image, image, affine, mark)


def is_made(recipe: Recipe, job: Job) -> bool:
    """Whether this very case is there already, of the same recipe and labels."""
    wanted = [job.image, job.label] if job.labelled else [job.image]
    mark = _mark(recipe, job)
    return all(_read_mark(path) == mark for path in wanted)


def _mark(recipe: Recipe, job: Job) -> str:
    """What the header says of a file's making; another recipe, or another mask, gives another mark."""
    mark = recipe.mark(job.number)
    return mark if job.mask is None else f"{mark} {zlib.crc32(job.mask.read_bytes()):08x}"


def _read_mark(path: Path) -> str | None:
    if not path.is_file():
        return None
    try:
        with open_nifti(path) as source:
            return bytes(source.header["descrip"].item()).decode(errors="replace")
    except UserError:
        return None


def _plan(
    outpath: Path, dataset: str, cases: int | None, unlabelled: int, masks: Sequence[Path] | None
) -> Iterator[Job]:
    numbers: dict[int, Path | None]
    if masks is None:
        numbers = dict.fromkeys(range(DEFAULT_CASES if cases is None else cases))
    else:
        numbers = {int(path.parent.name.removeprefix("case_")): path for path in masks[:cases]}
    for number, mask in numbers.items():
        yield Job(number, *_paths(outpath, dataset, number), mask=mask)
    first = max(FIRST_UNLABELLED[dataset], max(numbers, default=0) + 1)
    for number in range(first, first + unlabelled):
        yield Job(number, *_paths(outpath, dataset, number), labelled=False)


def _paths(outpath: Path, dataset: str, number: int) -> tuple[Path, Path]:
    """Image and label file of a case."""
    if dataset == "kits":
        folder = outpath / f"case_{number:05d}"
        return folder / "imaging.nii.gz", folder / "segmentation.nii.gz"
    return outpath / f"volume-{number}.nii.gz", outpath / f"segmentation-{number}.nii.gz"


@dataclass(frozen=True)
class _Mask:
    """Labels [Z, Y, X] with their spacing (z, y, x) in mm, affine and header."""

    labels: NDArray[np.uint8]
    spacing: tuple[float, float, float]
    affine: NDArray[np.float64]
    header: Any


def _read_mask(path: Path, size: int = 0) -> _Mask:
    """A KiTS label volume; size: its slices are resized to size x size, nearest neighbour (0: left as they are)."""
    volume = read_volume(Case(path.parent.name, path, None), labels=(), with_label=False)
    low, high = int(volume.image.min()), int(volume.image.max())
    if low < 0 or high > 2 or volume.scale != 1:
        raise UserError(f"{path}: has labels {low} to {high}; KiTS labels are 0, 1 and 2")
    labels, spacing, affine = volume.image.astype(np.uint8), volume.spacing, volume.header.get_best_affine()
    if size and labels.shape[1:] != (size, size):
        step = (1.0, labels.shape[1] / size, labels.shape[2] / size)
        labels = np.stack([nearest(plane, (size, size)) for plane in labels])
        spacing = (spacing[0], spacing[1] * step[1], spacing[2] * step[2])
        # The volume's outer faces stay where they are, so the first voxel's centre moves.
        of_file = np.array([step[axis] for axis in Orientation.of(affine).axes])
        affine = affine @ nib.affines.from_matvec(np.diag(of_file), (of_file - 1) / 2)
    return _Mask(labels, spacing, affine, volume.header)


def _write(path: Path, volume: NDArray[Any], affine: NDArray[np.float64], mark: str, header: Any = None) -> None:
    """Write [Z, Y, X] in the order of axes of the affine; `header` gives the geometry's other fields."""
    nifti = nib.Nifti1Image(Orientation.of(affine).file_view(volume), affine, header)
    nifti.header.set_data_dtype(volume.dtype)
    nifti.header.set_slope_inter(1, 0)
    nifti.header.set_xyzt_units("mm")
    nifti.header["descrip"] = mark.encode()
    with atomic_write(path) as temporary:
        nib.save(nifti, temporary)
