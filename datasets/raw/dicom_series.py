"""DICOM series below a folder as cases: grouped by SeriesInstanceUID from the headers alone, whatever files are called.

What is no CT, MR or PET volume (localizers, colour images, reports) is left out with its reason. A series is named by
its folder where that holds no other, else by its UID; never by what the headers say of the patient.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from datasets.raw.any_nifti import is_mask
from datasets.raw.cases import Candidate, FoundCases, identify
from datasets.raw.segments import MAKER
from datasets.raw.tree import SUFFIXES, Tree, is_dicom, nifti_stem, other_files, scan
from utils.errors import UserError
from utils.progress import progress

EXPECTED = "DICOM series of CT or MR"
IMAGES = ("CT", "MR", "PT")
# Image storage that is one file for a whole volume.
MULTI_FRAME = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2", "1.2.840.10008.5.1.4.1.1.4.1")
HEADER = [
    "Manufacturer",
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "ImageType",
    "PatientID",
    "FrameOfReferenceUID",
    "SamplesPerPixel",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "ReferencedSeriesSequence",
]
LOCALIZERS = "localizers"
COLOUR = "colour images"
NO_POSITION = "DICOM images without a position in the patient"
COPIES = "copies of slices that are read already"
PREDICTIONS = "predictions of this project, which are no reference"
SEGMENTATIONS = "DICOM segmentations that are not used here"
DAMAGED = "DICOM files whose header cannot be read"


@dataclass
class Series:
    """The slices of one SeriesInstanceUID, in no order. patient: the PatientID, to compare and never to show."""

    uid: str
    modality: str
    frame: str
    patient: str
    files: list[Path] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """The folder that holds all of its files, below it or in it."""
        return Path(os.path.commonpath([path.parent for path in self.files]))


@dataclass
class _Segmentation:
    """A DICOM SEG: the series that it says it is of, and its frame of reference."""

    path: Path
    series: frozenset[str]
    frame: str


@dataclass
class Contents:
    """What the DICOM files below a folder are. left_out: reason -> files."""

    series: dict[str, Series] = field(default_factory=dict)
    segmentations: list[_Segmentation] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    elsewhere: dict[str, str] = field(default_factory=dict)
    """Series of which nothing is read -> the reason."""


def find(root: Path, series: str | None = None, *, labels: bool = False) -> FoundCases:
    """The series below `root`, or the one whose UID is `series`; NoCases with what is there instead.

    labels: look for segmentations too: a DICOM SEG that refers to the series, or a NIfTI file of the case's name.
    """
    tree = scan(root)
    contents = look(_dicom_files(tree))
    if series is not None:
        _choose(contents, series, root)
    names = _names(contents.series.values(), root)
    patients: dict[str, str] = {}
    candidates = []
    for each in contents.series.values():
        name = names[each.uid]
        patient = patients.setdefault(each.patient, name) if each.patient else name
        label = _label_of(each, name, contents, tree) if labels else None
        candidates.append(
            Candidate(
                name,
                each.folder,
                label,
                patient=None if patient == name else patient,
                modality=each.modality,
                files=tuple(sorted(each.files)),
            )
        )
    used = {each.label for each in candidates}
    if others := [each.path for each in contents.segmentations if each.path not in used]:
        contents.left_out[SEGMENTATIONS] += others
    tree.foreign = [path for path in tree.foreign if not is_dicom(path)]
    beside = [] if labels else [path for path in tree.files if is_mask(path) or nifti_stem(path) in names.values()]
    return identify(candidates, tree, EXPECTED, other=contents.left_out, beside=beside)


def find_one(folder: Path) -> Candidate:
    """The only series below a folder; UserError if there is none or another one."""
    contents = look(_dicom_files(scan(folder)))
    if len(contents.series) != 1:
        raise UserError(f"{folder}: holds {len(contents.series)} DICOM series of CT or MR; give the folder of one")
    (series,) = contents.series.values()
    return Candidate(folder.resolve().name, folder, modality=series.modality, files=tuple(sorted(series.files)))


def look(files: Sequence[Path]) -> Contents:
    """Sort files by what their headers say."""
    contents = Contents()
    seen: set[str] = set()
    for path in progress(files, "reading headers", unit="file"):
        header = _header(path)
        if header is None:
            contents.left_out[DAMAGED].append(path)
        elif header.get("Modality") == "SEG" and header.get("Manufacturer") == MAKER:
            contents.left_out[PREDICTIONS].append(path)
        elif header.get("Modality") == "SEG":
            contents.segmentations.append(_segmentation(path, header))
        elif reason := _no_image(header):
            contents.left_out[reason].append(path)
            contents.elsewhere.setdefault(str(header.get("SeriesInstanceUID")), reason)
        elif header.SOPInstanceUID in seen:
            contents.left_out[COPIES].append(path)
        else:
            seen.add(header.SOPInstanceUID)
            uid = str(header.SeriesInstanceUID)
            frame, patient = str(header.get("FrameOfReferenceUID", "")), str(header.get("PatientID", ""))
            new = Series(uid, header.Modality, frame, patient)
            contents.series.setdefault(uid, new).files.append(path)
    return contents


def _dicom_files(tree: Tree) -> list[Path]:
    """Files that begin as DICOM does, for many have no suffix; of NIfTI files and hidden ones none is opened."""
    return [path for folder in tree.folders for path in other_files(folder) if is_dicom(path)]


def _header(path: Path) -> Dataset | None:
    """The few elements that say what a file is; None if they cannot be read, or if it is an index (DICOMDIR)."""
    try:
        with warnings.catch_warnings(action="ignore"):
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=HEADER)
            for name in HEADER:  # Elements are decoded when they are asked for.
                header.get(name)
    except Exception:  # pydicom lets through whatever a damaged element raises
        return None
    return header if "SeriesInstanceUID" in header and "SOPInstanceUID" in header else None


def _no_image(header: Dataset) -> str | None:
    """Why a file is no slice or volume of a series that can be segmented."""
    modality = str(header.get("Modality", "unknown"))
    if modality not in IMAGES:
        return f"DICOM files of modality {modality}"
    if "LOCALIZER" in (header.get("ImageType") or ()):
        return LOCALIZERS
    if header.get("SamplesPerPixel", 1) != 1:
        return COLOUR
    if header.get("SOPClassUID") in MULTI_FRAME:
        return None
    if not (header.get("ImageOrientationPatient") and header.get("ImagePositionPatient")):
        return NO_POSITION
    return None


def _segmentation(path: Path, header: Dataset) -> _Segmentation:
    references = header.get("ReferencedSeriesSequence") or ()
    series = frozenset(str(each.get("SeriesInstanceUID")) for each in references)
    return _Segmentation(path, series, str(header.get("FrameOfReferenceUID", "")))


def _choose(contents: Contents, uid: str, root: Path) -> None:
    """Keep one series; UserError with the reason or with those that exist."""
    if uid in contents.series:
        contents.series = {uid: contents.series[uid]}
        contents.left_out.clear()
        return
    if reason := contents.elsewhere.get(uid):
        raise UserError(f"{root}: series {uid} is left out: {reason}; choose another with --series")
    there = ", ".join(f"{each.uid} ({len(each.files)} files)" for each in contents.series.values())
    raise UserError(f"{root}: holds no series {uid}; choose one of {there or 'another folder'}")


def _names(series: Iterable[Series], root: Path) -> dict[str, str]:
    """UID -> the case's name: the folder's, with those above it where two are the same, or the UID."""
    series = list(series)
    inside = Counter(each.folder for each in series)
    called = Counter(folder.resolve().name.lower() for folder in inside)
    names = {}
    for each in series:
        name = each.folder.resolve().name
        if called[name.lower()] > 1:
            name = "_".join(each.folder.relative_to(root).parts) or name
        names[each.uid] = name if inside[each.folder] == 1 else each.uid
    return names


def _label_of(series: Series, name: str, contents: Contents, tree: Tree) -> Path | None:
    """The DICOM SEG that names the series, else one in its frame of reference alone, else NAME.nii.gz.

    What predict.py wrote is none; beside its NIfTI files lies the table of volumes. UserError if there are several.
    """
    found = [each.path for each in contents.segmentations if series.uid in each.series]
    if not found and [each.frame for each in contents.series.values()].count(series.frame) == 1:
        found = [each.path for each in contents.segmentations if not each.series and each.frame == series.frame]
    found = found or [path for path in [*tree.files, *_beside(tree.root)] if nifti_stem(path) == name]
    found = [path for path in found if not (path.parent / "volumes.json").exists()]
    if len(found) > 1:
        raise UserError(f"{found[0]} and {found[1]} are both segmentations of {series.folder}; leave one of them out")
    return found[0] if found else None


def _beside(root: Path) -> list[Path]:
    """The NIfTI file that has the name of the folder and lies next to it."""
    paths = (root.resolve().with_name(root.resolve().name + suffix) for suffix in SUFFIXES)
    return [path for path in paths if path.is_file()]
