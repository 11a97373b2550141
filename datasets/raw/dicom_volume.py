"""A DICOM series as a source of voxels that lies in space as its headers say. highdicom sorts and scales the slices.

The array is the one that NIfTI has of a series, (column, row, slice), with highdicom's affine in NIfTI's axes; from
there on a series is read, checked and turned as a NIfTI file is.
"""

from __future__ import annotations

import io
import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from datasets.raw.dicom_series import MULTI_FRAME
from datasets.raw.intensities import INT16
from datasets.raw.layout import Case
from datasets.raw.nifti import Source
from utils.errors import UserError

# Of direction cosines: what rounding in headers leaves.
DIRECTION = 1e-4
# The share by which distances of slices may differ.
SPACING = 0.01
# In mm, slices nearer than that are at one place.
SAME_PLACE = 1e-3
# The largest angle of a stack that is taken as upright, in degrees; highdicom refuses from 2.6 on.
TILT = 1.0
INSTALL = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg, or unpack it with gdcmconv --raw"


class Slice(FileDataset):
    """The header of a file, which decodes its pixels each time they are asked for and keeps none."""

    def __init__(self, path: Path) -> None:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        super().__init__(str(path), header, file_meta=header.file_meta)
        self.path = path
        implicit, little = header.original_encoding
        self.set_original_encoding(implicit, little, header.original_character_set)

    @property
    def pixel_array(self) -> NDArray[Any]:
        try:
            return pixel_array(self.path)
        except MemoryError:
            raise
        except Exception as error:  # decoders raise whatever they like
            reason = " ".join(str(error).split())
            raise UserError(f"{self.path}: its pixels cannot be decoded ({reason}); copy it again") from None


@dataclass
class Series:
    """What a segmentation needs to lie on a series: its slices without pixels, and their place in space."""

    slices: list[FileDataset]
    geometry: hd.VolumeGeometry


@dataclass
class SeriesSource(Source):
    """A series as `datasets.raw.nifti.open_nifti` would give it. voxels: [columns, rows, slices]."""

    voxels: NDArray[Any]
    series: Series

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.voxels.dtype

    def _slabs(self) -> Iterator[tuple[int, NDArray[Any]]]:
        yield 0, self.voxels


def open_series(case: Case) -> SeriesSource:
    """The volume of a case's files, in HU for CT; UserError if they are no regular stack of grey slices."""
    name = str(case.image) if case.image.resolve().name == case.name else f"{case.image} (series {case.name})"
    try:
        with warnings.catch_warnings(action="ignore"):  # pydicom warns of values that break the standard
            slices = _headers(case.files)
            if slices[0].SOPClassUID in MULTI_FRAME:
                volume = _multi_frame(slices, name)
            else:
                _check_stack(slices, name)
                volume = hd.get_volume_from_series(
                    slices,
                    dtype=_dtype(slices),
                    apply_real_world_transform=False,
                    apply_presentation_lut=False,
                    orientation_tol=DIRECTION,
                    rtol=SPACING,
                )
    except MemoryError:
        raise UserError(f"{name}: does not fit into memory; crop it, or use a larger machine") from None
    except (ValueError, AttributeError, KeyError, TypeError, RuntimeError, NotImplementedError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name}: cannot be read as a volume ({reason}); export the series again") from None
    return source_of(volume, Series(slices, volume.get_geometry()), case.image)


def source_of(volume: hd.Volume, series: Series, path: Path) -> SeriesSource:
    """highdicom's volume [slices, rows, columns], or a segmentation in its geometry, with a NIfTI header."""
    voxels = volume.array.T
    affine = np.asarray(volume.get_affine("RAS"), np.float64)[:, [2, 1, 0, 3]]
    header = nib.Nifti1Header()
    header.set_data_shape(voxels.shape)
    header.set_data_dtype(voxels.dtype)
    header.set_xyzt_units("mm")
    header.set_sform(affine, 1)
    header.set_qform(affine, 1)
    return SeriesSource(path, header, affine, voxels.shape, io.BytesIO(), voxels, series)


def _headers(files: Sequence[Path]) -> list[FileDataset]:
    """UserError for a compressed file without its decoder, before any pixel is read."""
    slices: list[FileDataset] = []
    for path in files:
        try:
            header = Slice(path)
            syntax = UID(header.file_meta.TransferSyntaxUID)
        except (OSError, EOFError, ValueError, AttributeError, pydicom.errors.InvalidDicomError) as error:
            raise UserError(
                f"{path}: cannot be read as DICOM ({' '.join(str(error).split())}); copy it again"
            ) from None
        if syntax.is_compressed and not _has_decoder(syntax):
            raise UserError(f"{path}: is compressed as {syntax.name}, for which no decoder is installed: {INSTALL}")
        slices.append(header)
    return slices


def _has_decoder(syntax: UID) -> bool:
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _multi_frame(slices: Sequence[FileDataset], name: str) -> hd.Volume:
    """The volume in one enhanced CT or MR file."""
    if len(slices) > 1:
        raise UserError(f"{name}: holds {len(slices)} multi-frame files; give a folder with one of them")
    image = hd.imread(str(slices[0].filename))
    return image.get_volume(
        dtype=np.float32, apply_real_world_transform=False, apply_presentation_lut=False, rtol=SPACING
    )


def _dtype(slices: Sequence[FileDataset]) -> type[np.generic]:
    """int16 where it holds every value that could be stored, in half of the memory; else float32."""
    for header in slices:
        slope, shift = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
        lowest, highest = _stored_range(header)
        ends = (lowest * slope + shift, highest * slope + shift)
        if not (slope.is_integer() and shift.is_integer() and INT16.min <= min(ends) and max(ends) <= INT16.max):
            return np.float32
        if "ModalityLUTSequence" in header:
            return np.float32
    return np.int16


def _stored_range(header: FileDataset) -> tuple[int, int]:
    bits = int(header.BitsStored)
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if header.PixelRepresentation else (0, (1 << bits) - 1)


def _check_stack(slices: Sequence[FileDataset], name: str) -> None:
    """UserError, with the slices that it is about, unless they are parallel, alike and one step apart."""
    first = slices[0]
    for each in slices:
        for keyword in ("Rows", "Columns", "PixelSpacing", "FrameOfReferenceUID", "Modality"):
            if each.get(keyword) != first.get(keyword):
                raise UserError(
                    f"{name}: {_file(each)} and {_file(first)} differ in {keyword}; keep the slices of one acquisition"
                )
    directions = np.array([each.ImageOrientationPatient for each in slices], float)
    turned = np.abs(directions - directions[0]).max(axis=1)
    if turned.max() > DIRECTION:
        other = slices[int(turned.argmax())]
        raise UserError(f"{name}: {_file(other)} is not parallel to {_file(first)}; keep the slices of one stack")
    normal = np.cross(directions[0, :3], directions[0, 3:])
    places = np.array([each.ImagePositionPatient for each in slices], float)
    heights = places @ normal
    order = np.argsort(heights)
    gaps = np.diff(heights[order])
    pairs = list(itertools.pairwise(order))
    if not gaps.size:
        return
    if gaps.min() < SAME_PLACE:
        pair = [slices[index] for index in pairs[int(gaps.argmin())]]
        acquisitions = sorted({str(each.get("AcquisitionNumber", "none")) for each in pair})
        which = f"acquisitions {' and '.join(acquisitions)}" if len(acquisitions) > 1 else "one acquisition"
        raise UserError(
            f"{name}: {_file(pair[0])} and {_file(pair[1])}, of {which}, lie at one place; keep one acquisition"
        )
    usual = float(np.median(gaps))
    if np.abs(gaps - usual).max() > SPACING * usual:
        at = int(np.abs(gaps - usual).argmax())
        pair = [slices[index] for index in pairs[at]]
        raise UserError(
            f"{name}: slices are missing or uneven: {_file(pair[0])} and {_file(pair[1])} lie {gaps[at]:.4g} mm apart, "
            f"others {usual:.4g}; bring those that are missing, or resample it with dcm2niix"
        )
    stack = places[order[-1]] - places[order[0]]
    tilt = math.degrees(math.acos(min(1.0, abs(stack @ normal) / float(np.linalg.norm(stack)))))
    if tilt > TILT:
        raise UserError(f"{name}: its slices are stacked at {tilt:.3g} degrees (gantry tilt); resample with dcm2niix")


def _file(header: FileDataset) -> str:
    return Path(str(header.filename)).name
