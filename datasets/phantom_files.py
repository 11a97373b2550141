"""Phantoms as files in the KiTS and LiTS layouts. What is there already is not made again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from filecmp import cmp
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from datasets.layout import Case
from datasets.nifti import Orientation, open_nifti
from datasets.phantom import Recipe, image_around, synthesise
from datasets.volume import read_volume
from utils.errors import UserError
from utils.files import whole_file, write_json
from utils.progress import progress

FIRST_UNLABELLED = {"kits": 210, "lits": 131}  # the challenges' own unlabelled cases begin there
DEFAULT_CASES = 12


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
    masks: Path | None = None,
) -> Summary:
    """Make what is not there yet. `cases` None: 12, or every case of `masks`, a folder of KiTS labels."""
    if masks is not None and masks.resolve() == outpath.resolve():
        raise UserError(f"{outpath}: is the folder of the masks; give another --outpath")
    jobs = list(_plan(outpath, recipe.dataset, cases, unlabelled, masks))
    for job in jobs:
        if not job.labelled and job.label.exists():
            raise UserError(f"{job.label}: exists, but the case is to be unlabelled; give another --outpath")
    todo = [job for job in jobs if not is_made(recipe, job)]
    with progress(range(len(todo)), "phantoms", unit="case") as bar:
        if workers > 1 and len(todo) > 1:
            with ProcessPoolExecutor(min(workers, len(todo))) as pool:
                for _ in pool.map(partial(make_case, recipe), todo):
                    bar.update()
        else:
            for job in todo:
                make_case(recipe, job)
                bar.update()
    if recipe.dataset == "kits":
        made = sorted(path.parent.name for path in outpath.glob("case_*/imaging.nii.gz"))
        write_json(outpath / "kits.json", [{"case_id": name} for name in made])
    return Summary(len(jobs), len(todo), unlabelled)


def make_case(recipe: Recipe, job: Job) -> None:
    """Write one case: labels first, so that a case cut short is never taken for an unlabelled one."""
    mark = recipe.mark(job.number)
    if job.mask is not None:
        labels, spacing, header = _read_mask(job.mask)
        image = image_around(recipe, job.number, labels, spacing)
        with whole_file(job.label) as temporary:
            shutil.copyfile(job.mask, temporary)
        _write(job.image, image, header.get_best_affine(), mark, header)
        return
    image, labels, _, affine = synthesise(recipe, job.number)
    if job.labelled:
        _write(job.label, labels, affine, mark)
    _write(job.image, image, affine, mark)


def is_made(recipe: Recipe, job: Job) -> bool:
    """Whether this very case is there already, of the same recipe and labels."""
    if not job.image.is_file() or (job.labelled and not job.label.is_file()):
        return False
    if job.mask is not None and not cmp(job.mask, job.label, shallow=False):
        return False
    try:
        with open_nifti(job.image) as source:
            return bytes(source.header["descrip"].item()).decode(errors="replace") == recipe.mark(job.number)
    except UserError:
        return False


def _plan(outpath: Path, dataset: str, cases: int | None, unlabelled: int, masks: Path | None) -> Iterator[Job]:
    numbers: dict[int, Path | None]
    if masks is None:
        numbers = dict.fromkeys(range(DEFAULT_CASES if cases is None else cases))
    else:
        found = sorted(masks.glob("case_*/segmentation.nii.gz"))
        numbered = [path for path in found if path.parent.name.removeprefix("case_").isdigit()]
        if not numbered:
            raise UserError(f"{masks}: holds no case_NNNNN/segmentation.nii.gz; give a folder of KiTS labels")
        numbers = {int(path.parent.name.removeprefix("case_")): path for path in numbered[:cases]}
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


def _read_mask(path: Path) -> tuple[NDArray[np.uint8], tuple[float, float, float], Any]:
    """Labels [Z, Y, X], spacing (z, y, x) in mm, and the file's header."""
    volume = read_volume(Case(path.parent.name, path, None), labels=(), with_label=False)
    low, high = int(volume.image.min()), int(volume.image.max())
    if low < 0 or high > 2 or volume.scale != 1:
        raise UserError(f"{path}: has labels {low} to {high}; KiTS labels are 0, 1 and 2")
    return volume.image.astype(np.uint8), volume.spacing, volume.header


def _write(path: Path, volume: NDArray[Any], affine: NDArray[np.float64], mark: str, header: Any = None) -> None:
    """Write [Z, Y, X] in the order of axes of the affine; `header` gives the geometry's other fields."""
    nifti = nib.Nifti1Image(Orientation.of(affine).file_view(volume), affine, header)
    nifti.header.set_data_dtype(volume.dtype)
    nifti.header.set_slope_inter(1, 0)
    nifti.header.set_xyzt_units("mm")
    nifti.header["descrip"] = mark.encode()
    with whole_file(path) as temporary:
        nib.save(nifti, temporary)
