"""Cases to read: those of a known layout or list, any NIfTI files, or DICOM series."""

from __future__ import annotations

from pathlib import Path

from datasets.raw import LIST, any_nifti, case_list, channel_choice, kits, open_layout
from datasets.raw.cases import Candidate, FoundCases, identify
from datasets.raw.layout import Layout, NoCases
from datasets.raw.tree import (
    NOT_FETCHED,
    Tree,
    conversion,
    is_dicom,
    is_fetched,
    is_foreign,
    nifti_stem,
    other_files,
    scan,
)
from utils.errors import UserError


def find_cases(
    path: Path, dataset: str, channel: int | None = None, series: str | None = None, below: bool = False
) -> FoundCases:
    """The cases of one file, of a list, of a folder in the layout of `dataset`, or of a folder of NIfTI files or DICOM.

    channel: which one to read of images that no layout describes and that have several. series: the UID of the only
    DICOM series to read. below: whether to take NIfTI files in folders below it too, each named with its folder.
    """
    if series is not None:
        return _find_series(path, series)
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
        if _is_of_series(path):
            return _find_series(path)
        try:
            return any_nifti.find(path, channel, below)
        except NoCases as no_image:
            if inside := next(filter(_holds_images, (path / "imagesTs", path / "imagesTr")), None):
                raise UserError(f"{path}: holds no images itself; give {inside}, which does") from None
            details = str(no_image).partition("; ")[2]
            raise UserError(
                f"{reason}; nor does it hold images as .nii or .nii.gz files{details and '; '}{details}"
            ) from None


def find_labelled(layout: Layout, root: Path) -> FoundCases:
    """The cases of a layout in `root`, or, where there is none, DICOM series with their segmentations."""
    try:
        return layout.find(root)
    except NoCases:
        if layout.name == LIST or not _is_of_series(root):
            raise
        return _find_series(root, labels=True)


def _find_series(path: Path, series: str | None = None, *, labels: bool = False) -> FoundCases:
    if not path.is_dir():
        raise UserError(f"{path}: is no folder; give the folder of a DICOM series")
    from datasets.raw import dicom_series  # pydicom, which NIfTI need not wait for

    return dicom_series.find(path, series, labels=labels)


def _is_of_series(root: Path) -> bool:
    """Whether a folder holds DICOM, in files of any names, and no NIfTI image: NAME.nii.gz next to NAME/ is a label."""
    tree = scan(root)
    loose = [path for path in tree.folders.get(root, []) if not any_nifti.is_mask(path)]
    if any((root / (nifti_stem(path) or "")) not in tree.folders for path in loose):
        return False
    return any(is_dicom(path) for folder in tree.folders for path in other_files(folder))


def _holds_images(folder: Path) -> bool:
    return folder.is_dir() and any(nifti_stem(file) for file in folder.iterdir())


def _one_image(path: Path, channel: int | None) -> FoundCases:
    """UserError if it is not there, or no NIfTI file."""
    if path.is_file() and is_dicom(path):
        raise UserError(f"{path}: is one file of a DICOM series; give the folder of the series")
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
