"""Whether the slices of a DICOM series make a volume, and which of them do not where it is none."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset

from utils.errors import UserError

# Of direction cosines: what rounding in headers leaves.
DIRECTION = 1e-4
# The share by which distances of slices may differ.
SPACING = 0.01
# In mm, slices nearer than that are at one place.
SAME_PLACE = 1e-3
# The largest angle of a stack that is taken as upright, in degrees; highdicom refuses from 2.6 on.
TILT = 1.0


def check_stack(slices: Sequence[FileDataset], name: str) -> None:
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
    if len(slices) > 1:
        _check_places(slices, normal, name)


def _check_places(slices: Sequence[FileDataset], normal: NDArray[np.float64], name: str) -> None:
    """UserError for slices at one place, gaps that differ, and a stack that is not upright. normal: of all slices."""
    places = np.array([each.ImagePositionPatient for each in slices], float)
    heights = places @ normal
    order = np.argsort(heights)
    gaps = np.diff(heights[order])
    pairs = list(itertools.pairwise(order))
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
