"""Intensity windows: from stored int16 to the network's input range."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datasets.raw.volume import Volume
from utils.errors import UserError

LOW_PERCENT, HIGH_PERCENT = 0.5, 99.5
LEVELS = 1 << 16


def window_image(image: NDArray[np.int16], low: float, high: float) -> NDArray[np.float32]:
    """[low, high] in stored units to [-1, 1], clipped; any shape."""
    scaled = np.multiply(image, np.float32(2 / (high - low)), dtype=np.float32)
    scaled -= np.float32((high + low) / (high - low))
    return np.clip(scaled, -1, 1, out=scaled)


def percentiles(image: NDArray[np.int16], *percents: float) -> tuple[float, ...]:
    """As `np.percentile`, in a tenth of the time; `image` is read plane by plane."""
    counts = np.zeros(LEVELS, np.int64)
    for plane in image:
        counts += np.bincount(np.ascontiguousarray(plane).view(np.uint16).ravel(), minlength=LEVELS)
    ends = np.cumsum(np.roll(counts, LEVELS // 2))

    def value_at(rank: int) -> float:
        return float(np.searchsorted(ends, rank, side="right")) - LEVELS // 2

    values = []
    for percent in percents:
        rank, part = divmod(percent / 100 * (image.size - 1), 1)
        below, above = value_at(int(rank)), value_at(min(int(rank) + 1, image.size - 1))
        values.append(below + (above - below) * part)
    return tuple(values)


def percentile_window(image: NDArray[np.int16]) -> tuple[float, float]:
    """(low, high) in stored units: the 0.5 and 99.5 percentiles of the volume, never of a slice."""
    low, high = percentiles(image, LOW_PERCENT, HIGH_PERCENT)
    return low, max(high, low + 1)


def stored_window(window: tuple[float, float], scale: float, shift: float) -> tuple[float, float]:
    """Converts a window from physical units (HU) to the units in which an image is stored."""
    low, high = window
    if not low < high:
        raise UserError(f"--window {low:g} {high:g}: the first number must be the lower one")
    return (low - shift) / scale, (high - shift) / scale


def volume_window(volume: Volume, window: tuple[float, float] | None) -> tuple[float, float]:
    """(low, high) in stored units of a window in HU; of the volume's percentiles if `window` is None."""
    if window is None:
        return percentile_window(volume.image)
    return stored_window(window, volume.scale, volume.shift)
