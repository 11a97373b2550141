"""DICOM series on disk, made with pydicom from volumes whose place in space is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from datasets.labels import organ_and_tumor
from datasets.raw import dicom_series
from datasets.raw.dicom_seg import Algorithm, write_dicom_seg
from datasets.raw.segments import segments_of
from datasets.raw.volume import read_volume

# Directions of slices, rows (downwards) and columns (to the right). +z+x-y has row cosines [0, -1, 0] and column
# cosines [1, 0, 0].
AXIAL = ["+z+y+x", "+z+y-x", "+z-y+x", "+z-y-x", "+z+x+y", "+z+x-y", "+z-x+y", "+z-x-y"]
SAGITTAL, CORONAL = "+x-z+y", "+y-z+x"
OBLIQUE = "oblique"
STORAGES = [*AXIAL, SAGITTAL, CORONAL, OBLIQUE]
SPACING = {"z": 3.0, "y": 0.8, "x": 0.7}
ORIGIN = np.array([-9.0, -8.0, -70.0])
"""Of voxel [0, 0, 0], in mm to left, posterior and superior."""
AXES = {"z": (0.0, 0.0, 1.0), "y": (0.0, 1.0, 0.0), "x": (1.0, 0.0, 0.0)}
INTERCEPT = -1024


def turn(storage: str) -> NDArray[np.float64]:
    """The rotation of the volume in space: 20 degrees about two axes for an oblique series, else none."""
    if storage != OBLIQUE:
        return np.eye(3)
    c, s = np.cos(np.radians(20)), np.sin(np.radians(20))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def place(index: tuple[int, int, int], storage: str = AXIAL[0]) -> NDArray[np.float64]:
    """Where voxel [z, y, x] lies, in mm to left, posterior and superior."""
    offset = sum(i * SPACING[axis] * np.array(AXES[axis]) for i, axis in zip(index, "zyx", strict=True))
    return ORIGIN + turn(storage) @ offset


def store(volume: NDArray[Any], storage: str) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """A volume [Z, Y, X] as [slices, rows, columns], and the affine to mm to left, posterior and superior."""
    words = AXIAL[0] if storage == OBLIQUE else storage
    axes, signs = words[1::2], [-1 if sign == "-" else 1 for sign in words[::2]]
    stored = volume.transpose(["zyx".index(axis) for axis in axes])
    stored = stored[tuple(slice(None, None, sign) for sign in signs)]
    first = [volume.shape[i] - 1 if f"-{axis}" in words else 0 for i, axis in enumerate("zyx")]
    affine = np.eye(4)
    affine[:3, 3] = place((first[0], first[1], first[2]), storage)
    for column, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[:3, column] = turn(storage) @ AXES[axis] * sign * SPACING[axis]
    return stored, affine


def save_nifti(path: Path, volume: NDArray[Any], storage: str) -> Path:
    """The same volume as NIfTI."""
    stored, affine = store(volume, storage)
    nib.save(nib.Nifti1Image(stored, np.diag([-1, -1, 1, 1]) @ affine), path)
    return path


def write_series(
    folder: Path,
    volume: NDArray[Any],
    storage: str = AXIAL[0],
    *,
    modality: str = "CT",
    change: Callable[[int, FileDataset], FileDataset | None] | None = None,
    seed: int = 0,
) -> list[FileDataset]:
    """Write HU [Z, Y, X], which grow to S, P, L, as one file a slice; file names and numbers are in no spatial order.

    change: what to make of slice i, None to leave it out. The slices that were written are returned, in spatial order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored, affine = store(volume, storage)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = affine[:3, :3] / spacing
    study, series, frame = (generate_uid(entropy_srcs=[str(folder), what, str(seed)]) for what in "abc")
    order = np.random.default_rng(seed).permutation(len(stored))
    written = []
    for i, pixels in enumerate(stored):
        header = _slice(pixels, modality)
        header.StudyInstanceUID, header.SeriesInstanceUID, header.FrameOfReferenceUID = study, series, frame
        header.InstanceNumber = int(order[i]) + 1
        header.ImagePositionPatient = [round(x, 6) for x in affine[:3, 3] + i * affine[:3, 0]]
        header.ImageOrientationPatient = [round(x, 9) for x in (*cosines[:, 2], *cosines[:, 1])]
        header.PixelSpacing = [round(x, 6) for x in spacing[1:]]
        header.SliceThickness = round(spacing[0], 6)
        changed = header if change is None else change(i, header)
        if changed is not None:
            changed.save_as(folder / f"IM{order[i]:04d}", enforce_file_format=True)
            written.append(changed)
    return written


def write_seg(path: Path, labels: NDArray[np.uint8], series: Path) -> Path:
    """Labels of KiTS as the SEG of the series in a folder, drawn by a reader."""
    (case,) = dicom_series.find(series)
    segments = segments_of("kits", organ_and_tumor()["all"])
    write_dicom_seg(path, labels, read_volume(case, ()), segments, Algorithm("a network", "1"))
    return as_drawn(path)


def as_drawn(path: Path) -> Path:
    """A SEG that this project wrote, in place, as if a reader had drawn it."""
    drawn = pydicom.dcmread(path)
    drawn.Manufacturer = "a reading room"
    drawn.save_as(path)
    return path


def _slice(pixels: NDArray[Any], modality: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID, header.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    header.SpecificCharacterSet = "ISO_IR 192"
    header.Modality, header.ImageType = modality, ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.PatientName, header.PatientID, header.PatientBirthDate, header.PatientSex = "Müller^Ilse", "P-77", "", "O"
    header.StudyDate = header.SeriesDate = "20200101"
    header.StudyTime, header.AccessionNumber, header.StudyID = "120000", "", "1"
    header.ReferringPhysicianName = header.Manufacturer = ""
    header.SeriesNumber, header.AcquisitionNumber = 2, 1
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns = pixels.shape
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
    if modality == "CT":
        header.RescaleSlope, header.RescaleIntercept, header.RescaleType = 1, INTERCEPT, "HU"
    header.PixelData = np.clip(pixels.astype(np.int32) - INTERCEPT, 0, 4095).astype(np.uint16).tobytes()
    return header
