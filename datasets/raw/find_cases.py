"""Cases to read: those of a known layout, or any NIfTI files."""

from __future__ import annotations

from pathlib import Path

from datasets.raw import open_layout
from datasets.raw.layout import SUFFIXES, Case, NoCases, nifti_stem
from utils.errors import UserError


def find_cases(path: Path, dataset: str) -> list[Case]:
    """The cases of one file, of a folder in the layout of `dataset`, or of a folder of NIfTI files without labels."""
    if path.is_file():
        if not path.name.endswith(SUFFIXES):
            raise UserError(f"{path}: is not a .nii or .nii.gz file")
        return [_unlabelled_case(path)]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    try:
        return open_layout(dataset, path).find(path)
    except NoCases as reason:
        images = [file for file in sorted(path.iterdir()) if nifti_stem(file) and not _is_segmentation(file)]
        if not images:
            raise UserError(f"{reason}; nor does it hold images as .nii or .nii.gz files") from None
    cases: dict[str, Case] = {}
    for case in map(_unlabelled_case, images):
        if cases.setdefault(case.name, case) is not case:
            raise UserError(f"{case.image}: has the name of {cases[case.name].image}; rename or remove one")
    return list(cases.values())


def _is_segmentation(path: Path) -> bool:
    """By the names that the supported layouts give to labels."""
    name = nifti_stem(path) or ""
    return name == "segmentation" or name.startswith("segmentation-") or name.endswith("_gt")


def _unlabelled_case(image: Path) -> Case:
    """Named after the file; case_00007/imaging.nii.gz is named 00007, as the KiTS layout names it."""
    name = nifti_stem(image) or image.name
    return Case(image.resolve().parent.name.removeprefix("case_") if name == "imaging" else name, image, None)
