"""A DICOM series as a source of voxels that lies in space as its headers say. highdicom sorts and scales the slices.

The array is the one that NIfTI has of a series, (column, row, slice), with highdicom's affine in NIfTI's axes; from
there on a series is read, checked and turned as a NIfTI file is.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
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
from datasets.raw.dicom_stack import DIRECTION, SPACING, check_stack
from datasets.raw.intensities import INT16
from datasets.raw.layout import Case
from datasets.raw.nifti import Source
from utils.errors import UserError

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
    """A series as `datasets.raw.nifti.open_nifti` would give it."""

    series: Series


def open_series(case: Case) -> SeriesSource:
    """The volume of a case's files, in HU for CT; UserError if they are no regular stack of grey slices."""
    name = str(case.image) if case.image.resolve().name == case.name else f"{case.image} (series {case.name})"
    try:
        with warnings.catch_warnings(action="ignore"):  # pydicom warns of values that break the standard
            slices = _headers(case.files)
            if slices[0].SOPClassUID in MULTI_FRAME:
                volume = _multi_frame(slices, name)
            else:
                check_stack(slices, name)
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
    voxels = volume.array.T[..., None]
    affine = np.asarray(volume.get_affine("RAS"), np.float64)[:, [2, 1, 0, 3]]
    header = nib.Nifti1Header()
    header.set_data_shape(voxels.shape[:3])
    header.set_data_dtype(voxels.dtype)
    header.set_xyzt_units("mm")
    header.set_sform(affine, 1)
    header.set_qform(affine, 1)
    return SeriesSource(path, header, affine, voxels.shape[:3], voxels, 0, series)


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
