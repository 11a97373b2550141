"""A case as the page's viewer reads it: cropped, 8 bits a pixel, masks as runs, deflated.

One layer of grey is enough for every window of CT: from -200 to 300 HU a level is 2 HU, and the noise of a CT slice is
5 to 20. Where the values span less, a level is less.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.labelled_cases import LabelledCase

Labels = NDArray[np.uint8]
"""Class indices [Z, Y, X]."""

STORED_HU = (-200.0, 300.0)
WINDOWS_HU = {"soft tissue": (-160.0, 240.0), "lesions": (-20.0, 180.0)}
TRUTH = "truth"
MARGIN = 24
"""Pixels around what the crop keeps; SLICES_AROUND: slices above and below it."""
SLICES_AROUND = 3
MOST_BYTES = 10_000_000
"""Of a case in the page."""


@dataclass(frozen=True)
class ViewerCase:
    """payload: deflated and in base64, the grey levels [Z, Y, X], then of each layer its runs (`encode_runs`)."""

    name: str
    payload: str
    description: dict[str, Any] = field(default_factory=dict)


def pack_case(
    case: LabelledCase, layers: Mapping[str, Labels], window: tuple[float, float], hounsfield: bool, oriented: bool
) -> ViewerCase:
    """The part of a case in which its labels or a layer have anything, with a margin, at most `MOST_BYTES`.

    layers: the truth and what networks predict; window: theirs; oriented: whether axes grow to superior, posterior,
    left. What would be too large is shown with half the pixels a side, and half again.
    """
    box = crop_box(case.label, *layers.values())
    stored = stored_range(case.image[box], window, hounsfield)
    step = 1
    while True:
        inside = (box[0], *(slice(part.start, part.stop, step) for part in box[1:]))
        grey = grey_levels(case.image[inside], stored)
        runs = {name: encode_runs(labels[inside]) for name, labels in layers.items()}
        payload = base64.b64encode(zlib.compress(b"".join([grey.tobytes(), *(run.tobytes() for run in runs.values())])))
        if len(payload) <= MOST_BYTES:
            break
        step *= 2
    dz, dy, dx = case.spacing or (1.0, 1.0, 1.0)
    description = {
        "shape": grey.shape,
        "numbers": list(case.numbers or range(len(case.image)))[box[0]],
        "slices": len(case.image),
        "aspect": dy / dx,
        "slice_mm": dz if case.spacing else None,
        "pixel_mm2": dy * dx * step * step if case.spacing else None,
        "step": step,
        "oriented": oriented,
        "range": stored,
        "unit": "HU" if hounsfield else "",
        "windows": windows(stored, window, hounsfield),
        "start": fullest_slice(layers[TRUTH][inside]),
        "runs": {name: len(run) for name, run in runs.items()},
    }
    return ViewerCase(case.name, payload.decode(), description)


def crop_box(*masks: Labels) -> tuple[slice, slice, slice]:
    """Where any of the masks [Z, Y, X] is not 0, with a margin; everything where none is."""
    anything = np.zeros(masks[0].shape, bool)
    for mask in masks:
        anything |= mask > 0
    if not anything.any():
        anything[:] = True
    ranges = []
    for axis, margin in enumerate((SLICES_AROUND, MARGIN, MARGIN)):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(anything.any(axis=others))
        ranges.append(slice(max(0, int(filled[0]) - margin), min(anything.shape[axis], int(filled[-1]) + 1 + margin)))
    return ranges[0], ranges[1], ranges[2]


def stored_range(image: NDArray[np.int16], window: tuple[float, float], hounsfield: bool) -> tuple[float, float]:
    """The values of the lowest and the highest grey level: as wide as any window, as narrow as the values allow."""
    low, high = window
    if hounsfield:
        low, high = min(low, STORED_HU[0]), max(high, STORED_HU[1])
    low, high = max(low, float(image.min())), min(high, float(image.max()))
    return (low, high) if low < high else (low, low + 1)


def windows(
    stored: tuple[float, float], window: tuple[float, float], hounsfield: bool
) -> list[tuple[str, float, float]]:
    """Name, lowest and highest value of the windows to choose from, the network's own first."""
    low, high = stored
    others = WINDOWS_HU if hounsfield else {"dark": (low, (low + high) / 2), "bright": ((low + high) / 2, high)}
    return [("network's", *window), *((name, *limits) for name, limits in others.items()), ("all", low, high)]


def grey_levels(image: NDArray[np.int16], stored: tuple[float, float]) -> NDArray[np.uint8]:
    """0..255 for values from the lower to the upper end of the range; slice by slice, for memory."""
    low, high = stored
    levels = np.empty(image.shape, np.uint8)
    for index, plane in enumerate(image):
        levels[index] = np.rint((np.clip(plane, low, high) - low) * (255 / (high - low)))
    return levels


def encode_runs(labels: Labels) -> NDArray[np.uint32]:
    """Runs of equal labels, row by row, as label * 2^24 + length, little-endian; none goes on in the next slice."""
    flat = labels.reshape(-1)
    breaks = np.arange(0, len(flat), labels[0].size)
    starts = np.union1d(np.flatnonzero(flat[1:] != flat[:-1]) + 1, breaks)
    lengths = np.diff(starts, append=len(flat))
    words: NDArray[np.uint32] = flat[starts].astype(np.uint32) << 24 | lengths.astype(np.uint32)
    return words.astype("<u4")


def fullest_slice(labels: Labels) -> int:
    """Of the highest class that there is, the slice with the most of it; the middle one of nothing."""
    highest = labels.max()
    return int((labels == highest).sum(axis=(1, 2)).argmax()) if highest else len(labels) // 2
