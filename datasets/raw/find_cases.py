"""Cases to read whatever their layout: a data set's own, or any NIfTI files."""

from __future__ import annotations

from pathlib import Path

from datasets.raw import open_layout
from datasets.raw.layout import SUFFIXES, Case, NoCases, stem
from utils.errors import UserError


def find_inputs(path: Path, dataset: str) -> list[Case]:
    """One file, a folder in the layout of `dataset`, or a folder of NIfTI files, which then have no labels."""
    if path.is_file():
        if not path.name.endswith(SUFFIXES):
            raise UserError(f"{path}: is not a .nii or .nii.gz file")
        return [_single(path)]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    try:
        return open_layout(dataset, path).find(path)
    except NoCases as reason:
        images = [file for file in sorted(path.iterdir()) if stem(file) and not _is_segmentation(file)]
        if not images:
            raise UserError(f"{reason}; nor does it hold images as .nii or .nii.gz files") from None
    found: dict[str, Case] = {}
    for case in map(_single, images):
        if found.setdefault(case.name, case) is not case:
            raise UserError(f"{case.image}: has the name of {found[case.name].image}; rename or remove one")
    return list(found.values())


def _is_segmentation(path: Path) -> bool:
    """By the names that the known layouts give to labels."""
    name = stem(path) or ""
    return name == "segmentation" or name.startswith("segmentation-") or name.endswith("_gt")


def _single(path: Path) -> Case:
    """A lone file is named after itself; case_00007/imaging.nii.gz is 00007, as when its folder's parent is given."""
    name = stem(path) or path.name
    return Case(path.resolve().parent.name.removeprefix("case_") if name == "imaging" else name, path, None)
