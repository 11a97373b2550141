"""Cases to read: those of a known layout or list, or any NIfTI files."""

from __future__ import annotations

from pathlib import Path

from datasets.raw import LIST, any_nifti, case_list, channel_choice, kits, open_layout
from datasets.raw.cases import Candidate, FoundCases, identify
from datasets.raw.layout import NoCases
from datasets.raw.tree import NOT_FETCHED, Tree, conversion, is_fetched, is_foreign, nifti_stem
from utils.errors import UserError


def find_cases(path: Path, dataset: str, channel: int | None = None, below: bool = False) -> FoundCases:
    """The cases of one file, of a list, of a folder in the layout of `dataset`, or of a folder of NIfTI files.

    channel: which one to read of images that no layout describes and that have several. below: whether to take NIfTI
    files in folders below it too, each named with its folder.
    """
    if path.suffix.lower() == case_list.SUFFIX:
        return case_list.find(path)
    if not path.is_dir():
        return _one_image(path, channel)
    try:
        if dataset == LIST:
            return case_list.find(path)
        if dataset == "kits":
            return kits.find(path)  # its layout reads segmentations, for the labels
        return open_layout(dataset, path, channel=channel_choice(dataset, channel)).find(path)
    except NoCases as reason:
        try:
            return any_nifti.find(path, channel, below)
        except NoCases as no_image:
            if inside := next(filter(_holds_images, (path / "imagesTs", path / "imagesTr")), None):
                raise UserError(f"{path}: holds no images itself; give {inside}, which does") from None
            details = str(no_image).partition("; ")[2]
            raise UserError(
                f"{reason}; nor does it hold images as .nii or .nii.gz files{details and '; '}{details}"
            ) from None


def _holds_images(folder: Path) -> bool:
    return folder.is_dir() and any(nifti_stem(file) for file in folder.iterdir())


def _one_image(path: Path, channel: int | None) -> FoundCases:
    """UserError if it is not there, or no NIfTI file."""
    if is_foreign(path):
        raise UserError(f"{path}: is not a .nii or .nii.gz file; {conversion(path)}")
    if path.is_symlink() and not path.exists():
        raise UserError(f"{path}: is {NOT_FETCHED}")
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if not nifti_stem(path):
        raise UserError(f"{path}: is not a .nii or .nii.gz file")
    if not is_fetched(path):
        raise UserError(f"{path}: is {NOT_FETCHED}")
    candidate = Candidate(any_nifti.name_of(path), path, channel=any_nifti.channel_of(path, channel))
    return identify([candidate], Tree(path.parent), any_nifti.EXPECTED)
