"""The voxels of a segmentation: whole numbers, however a file stores them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.raw.nifti import Orientation, Source
from utils.errors import UserError

# What rounding in a file's scaling leaves of a label.
TOLERANCE = 0.01
SHOWN = 5


def read_label(
    source: Source, orientation: Orientation, allowed: frozenset[int]
) -> tuple[NDArray[np.uint8], list[str]]:
    """The segmentation [Z, Y, X], and a note if values had to be rounded; UserError if a label is not allowed."""
    slope, intercept = source.scaling
    furthest, example = 0.0, 0.0

    def refuse(unknown: Iterable[Any]) -> UserError:
        values = ", ".join(f"{value:.10g}" for value in sorted(unknown)[:SHOWN])
        expected = ", ".join(str(value) for value in sorted(allowed))
        return UserError(f"{source.path}: holds the unknown labels {values}; expected only {expected}")

    def convert(slab: NDArray[Any]) -> NDArray[np.uint8]:
        nonlocal furthest, example
        with np.errstate(invalid="ignore", over="ignore"):
            values = slab if (slope, intercept) == (1.0, 0.0) else slab * slope + intercept
            label = values.astype(np.uint8, copy=False)
            if values.dtype == np.uint8 or np.array_equal(label, values):
                return label
            label = np.rint(values).astype(np.uint8)
            apart = np.abs(values - label)
        if not apart.max() <= TOLERANCE:
            raise refuse(set(np.unique(values[~(apart <= TOLERANCE)]).tolist()))
        if apart.max() > furthest:
            furthest, example = float(apart.max()), float(values.ravel()[apart.argmax()])
        return label

    label: NDArray[np.uint8] = source.load(np.uint8, orientation, convert, sparse=True)
    if int(label.max()) >= len(allowed) or allowed != frozenset(range(len(allowed))):
        unknown = {int(value) for plane in label for value in np.flatnonzero(np.bincount(plane.ravel()))} - allowed
        if unknown:
            raise refuse(unknown)
    if not furthest:
        return label, []
    return label, [f"labels such as {example:.10g} are rounded, by at most {furthest:.2g}"]
