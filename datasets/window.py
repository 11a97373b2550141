"""Intensity windows: from stored int16 to the network's input range."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datasets.raw.intensities import percentiles
from datasets.raw.volume import Volume
from utils.errors import UserError

LOW_PERCENT, HIGH_PERCENT = 0.5, 99.5


def window_image(image: NDArray[np.int16], low: float, high: float) -> NDArray[np.float32]:
    """[low, high] in stored units to [-1, 1], clipped; any shape."""
    factor, shift = linear_map(low, high)
    scaled = np.multiply(image, np.float32(factor), dtype=np.float32)
    scaled -= np.float32(shift)
    return np.clip(scaled, -1, 1, out=scaled)


def linear_map(low: float, high: float) -> tuple[float, float]:
    """(factor, shift): value * factor - shift takes low to -1 and high to 1."""
    return 2 / (high - low), (high + low) / (high - low)


def percentile_window(counts: NDArray[np.int64]) -> tuple[float, float]:
    """(low, high) in stored units: the 0.5 and 99.5 percentiles of a volume, never of a slice, from `level_counts`."""
    low, high = percentiles(counts, LOW_PERCENT, HIGH_PERCENT)
    return low, max(high, low + 1)


def stored_window(window: tuple[float, float], scale: float, shift: float, image: object) -> tuple[float, float]:
    """Converts a window from physical units (HU) to the units in which an image is stored.

    image: what a UserError calls it, if the window lies between two of its values.
    """
    low, high = window
    if not low < high:
        raise UserError(f"--window {low:g} {high:g}: the first number must be the lower one")
    if high - low < scale:
        raise UserError(
            f"{image}: its values are {scale:.3g} apart, too coarse for the window {low:g} {high:g}; give another "
            "--window, or mend its outliers"
        )
    return (low - shift) / scale, (high - shift) / scale


def volume_window(volume: Volume, window: tuple[float, float] | None) -> tuple[float, float]:
    """(low, high) in stored units of a window in HU; of the volume's percentiles if `window` is None."""
    if window is None:
        return percentile_window(volume.level_counts)
    return stored_window(window, volume.scale, volume.shift, volume.case.image)
