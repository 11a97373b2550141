"""One case in memory, its axes growing to superior, posterior and left, and label maps back to files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from datasets.raw.layout import Case
from datasets.raw.nifti import Orientation, Source, open_nifti
from utils.errors import UserError
from utils.files import atomic_write

AFFINE_TOLERANCE = 1e-3
# MR magnitudes are not negative: fractional values that reach below this are resampled CT.
SURELY_HU = -200.0
INT16 = np.iinfo(np.int16)


@dataclass
class Volume:
    """image: int16 [Z, Y, X], physical value = image * scale + shift (1, 0 for HU); label: uint8 [Z, Y, X].

    spacing: (z, y, x) in mm; affine, header: the source's; slices: [Z], the source's slice numbers;
    notes: what is unusual but not an error.
    """

    case: Case
    image: NDArray[np.int16]
    label: NDArray[np.uint8] | None
    spacing: tuple[float, float, float]
    affine: NDArray[np.float64]
    header: Any
    scale: float
    shift: float
    slices: NDArray[np.intp]
    notes: list[str] = field(default_factory=list)


def read_volume(case: Case, labels: Iterable[int], with_label: bool = True) -> Volume:
    """Read a case; UserError if a file is unreadable, the shapes disagree, or a label is not in `labels`."""
    notes: list[str] = []
    with open_nifti(case.image, case.channel) as source:
        image, scale, shift = _read_image(source, notes)
    affine, shape = source.affine, source.shape
    label = None
    if with_label and case.label is not None:
        with open_nifti(case.label) as mask:
            if mask.shape != shape:
                raise UserError(f"{case.label}: has shape {mask.shape}, but {case.image} has {shape}; replace one")
            difference = float(np.abs(mask.affine - affine).max())
            if difference > AFFINE_TOLERANCE:
                notes.append(f"the segmentation's affine differs by up to {difference:.3g}: the image's is used")
            label = _read_label(mask, Orientation.of(affine), frozenset(labels))
    orientation = Orientation.of(affine)
    z, y, x = orientation.to_zyx(tuple(float(size) for size in nib.affines.voxel_sizes(affine)))
    numbers = orientation.slice_numbers(len(image))
    return Volume(case, image, label, (z, y, x), affine, source.header, scale, shift, numbers, notes)


def write_labels(path: Path, labels: NDArray[np.uint8], volume: Volume) -> None:
    """Write labels [Z, Y, X] as uint8 .nii or .nii.gz in the source's orientation, affine and header."""
    header = volume.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    kind: Any = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    voxels = Orientation.of(volume.affine).file_view(np.asarray(labels, np.uint8))
    with atomic_write(path) as temporary:
        nib.save(kind(voxels, volume.affine, header), temporary)


def _read_image(source: Source, notes: list[str]) -> tuple[NDArray[np.int16], float, float]:
    """The image as int16, with the scale and shift that restore its physical values."""
    orientation = Orientation.of(source.affine)
    if source.scaling == (1.0, 0.0) and np.can_cast(source.dtype, np.int16):
        return source.load(np.int16, orientation), 1.0, 0.0
    raw = source.load(source.dtype.newbyteorder("="), orientation)
    if raw.dtype.kind == "f" and (broken := int(raw.size - np.isfinite(raw).sum())):
        if broken == raw.size:
            raise UserError(f"{source.path}: holds no voxel that is a finite number; export it again")
        raw[~np.isfinite(raw)] = raw.min(where=np.isfinite(raw), initial=np.inf)
        notes.append(f"{broken} voxels are not finite: set to the lowest value")
    return _to_int16(raw, *source.scaling)


def _to_int16(raw: NDArray[Any], slope: float, intercept: float) -> tuple[NDArray[np.int16], float, float]:
    """Integers and HU keep their values where int16 can hold them; other values are scaled to the int16 range."""
    low, high = sorted(float(value) * slope + intercept for value in (raw.min(), raw.max()))
    integral = slope.is_integer() and intercept.is_integer()
    integral = integral and (raw.dtype.kind in "iu" or all(np.array_equal(plane, np.rint(plane)) for plane in raw))
    if low >= INT16.min and high <= INT16.max and (integral or low < SURELY_HU):
        scale, shift = 1.0, 0.0
    else:
        scale, shift = (high - low) / (INT16.max - INT16.min - 1) or 1.0, (low + high) / 2
    image = np.empty(raw.shape, np.int16)
    for target, plane in zip(image, raw, strict=True):
        target[:] = np.rint((plane.astype(np.float64) * slope + intercept - shift) / scale)
    return image, scale, shift


def _read_label(source: Source, orientation: Orientation, allowed: frozenset[int]) -> NDArray[np.uint8]:
    """The segmentation as uint8, whatever type and scaling it is stored with; UserError if a label is not allowed."""
    slope, intercept = source.scaling

    def refuse(unknown: Iterable[Any]) -> UserError:
        values = ", ".join(f"{value:g}" for value in sorted(unknown)[:5])
        expected = ", ".join(str(value) for value in sorted(allowed))
        return UserError(f"{source.path}: holds the unknown labels {values}; expected only {expected}")

    def convert(slab: NDArray[Any]) -> NDArray[np.uint8]:
        values = slab if (slope, intercept) == (1.0, 0.0) else slab * slope + intercept
        with np.errstate(invalid="ignore"):
            label = values.astype(np.uint8)
        if values.dtype != np.uint8 and not np.array_equal(label, values):
            raise refuse(set(np.unique(values).tolist()) - allowed)
        return label

    label: NDArray[np.uint8] = source.load(np.uint8, orientation, convert)
    if int(label.max()) >= len(allowed) or allowed != frozenset(range(len(allowed))):
        unknown = {int(value) for plane in label for value in np.flatnonzero(np.bincount(plane.ravel()))} - allowed
        if unknown:
            raise refuse(unknown)
    return label
