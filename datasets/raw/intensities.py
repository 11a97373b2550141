"""Physical values as int16, whatever type, scaling and outliers a file has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.raw.turning import planes_in_memory
from utils.errors import UserError

INT16 = np.iinfo(np.int16)
LEVELS = 1 << 16
# What CT is clipped to before it becomes int16: nothing of a patient lies beyond, and 1 HU stays the coarsest step.
HU_RANGE = (-4096.0, float(INT16.max))
FLOAT_RANGE = (float(np.finfo(np.float32).min), float(np.finfo(np.float32).max))
# The share of voxels above HU_RANGE that metal and broken voxels may have.
MOST_ABOVE = 0.01
# Fractional values that reach below this are resampled CT: MR magnitudes are not negative.
SURELY_HU = -200.0
# Between the 0.5 and 99.5 percentiles; where there are fewer, a few outliers have taken the others.
FEWEST_LEVELS = 256
SAMPLE = 1_000_000


@dataclass(frozen=True)
class Scaled:
    """Finite voxels [Z, Y, X] as a file stores them; physical value = raw * slope + intercept."""

    raw: NDArray[Any]
    slope: float
    intercept: float

    @property
    def range(self) -> tuple[float, float]:
        low, high = sorted(float(value) * self.slope + self.intercept for value in (self.raw.min(), self.raw.max()))
        return low, high

    @property
    def integral(self) -> bool:
        """Whether all physical values are whole numbers."""
        if not (self.slope.is_integer() and self.intercept.is_integer()):
            return False
        return self.raw.dtype.kind in "iu" or all(np.array_equal(plane, np.rint(plane)) for plane in self.raw)

    def planes(self) -> Iterator[NDArray[np.float64]]:
        """Physical values one plane at a time, for float64 needs four times the memory of int16."""
        for plane in self.raw:
            values = plane.astype(np.float64)
            values *= self.slope
            values += self.intercept
            yield values

    def percentiles(self, *percents: float) -> tuple[float, ...]:
        """In physical units, of at most a million voxels."""
        sample = self.raw.reshape(-1)[:: 1 + self.raw.size // SAMPLE].astype(np.float64)
        return tuple(np.percentile(sample * self.slope + self.intercept, percents).tolist())

    def count(self, low: float, high: float) -> int:
        """The number of voxels outside [low, high]."""
        return sum(int(np.count_nonzero((plane < low) | (plane > high))) for plane in self.planes())

    def quantise(self, bounds: tuple[float, float], scale: float, shift: float) -> NDArray[np.int16]:
        """int16 that times `scale` plus `shift` are the physical values, clipped to `bounds`."""
        image = np.empty(self.raw.shape, np.int16)
        for target, plane in zip(image, self.planes(), strict=True):
            np.clip(plane, *bounds, out=plane)
            plane -= shift
            plane /= scale
            target[:] = np.rint(plane, out=plane)
        return image

    def spread(self, bounds: tuple[float, float]) -> tuple[NDArray[np.int16], float, float]:
        """int16 whose whole range stands for `bounds`, with the scale and shift."""
        low, high = bounds
        scale, shift = (high - low) / (INT16.max - INT16.min - 1) or 1.0, (low + high) / 2
        return self.quantise(bounds, scale, shift), scale, shift

    def clipping_note(self, bounds: tuple[float, float], unit: str = "") -> str:
        low, high = self.range
        return (
            f"{self.count(*bounds)} voxels are beyond {bounds[0]:.6g} to {bounds[1]:.6g}{unit} (the image reaches from "
            f"{low:.4g} to {high:.4g}): clipped"
        )


def fill_non_finite(raw: NDArray[Any], path: Path, allowed: bool) -> list[str]:
    """Set NaN and infinity to the lowest finite value, in place, if that is `allowed`; UserError with their count."""
    if raw.dtype.kind != "f":
        return []
    with np.errstate(invalid="ignore"):
        if np.isfinite(raw.min()) and np.isfinite(raw.max()):
            return []
    broken = ~np.isfinite(raw)
    count = int(np.count_nonzero(broken))
    if count == raw.size:
        raise UserError(f"{path}: holds no voxel that is a finite number; export it again")
    if not allowed:
        raise UserError(
            f"{path}: {count} of its {raw.size} voxels are NaN or infinite; export it again, or set them to the lowest "
            "value with --any_intensity"
        )
    raw[broken] = raw.min(where=~broken, initial=np.inf)
    return [f"{count} voxels are NaN or infinite: set to the lowest value"]


def to_int16(
    scaled: Scaled, path: Path, hounsfield: bool, any_intensity: bool = False
) -> tuple[NDArray[np.int16], float, float, list[str]]:
    """The image as int16, the scale and shift that restore its physical values, and notes.

    hounsfield: whether it should be CT; any_intensity: whether it need not be in HU all the same.

    Integers and HU keep their values where int16 can hold them, others are scaled to its range. Values far beyond
    all others are clipped, for otherwise they alone would decide the step between two levels.
    """
    notes = []
    low, high = scaled.range
    if not np.isfinite([low, high]).all():
        raise UserError(f"{path}: its slope and intercept make numbers that are too large; export it again")
    if any_intensity and scaled.count(*HU_RANGE) > scaled.raw.size / 2:
        hounsfield = False  # Other units. Of HU with fill values it is these that are clipped.
    limits, unit = (HU_RANGE, " HU") if hounsfield else (FLOAT_RANGE, "")
    if low < limits[0] or high > limits[1]:
        if hounsfield and not any_intensity and scaled.count(-np.inf, limits[1]) > MOST_ABOVE * scaled.raw.size:
            raise UserError(
                f"{path}: more than 1 % of its voxels are above {limits[1]:g}, up to {high:.4g}, which can't be HU; "
                "export it again, or take it as it is with --any_intensity"
            )
        notes.append(scaled.clipping_note(limits, unit))
        low, high = max(low, limits[0]), min(high, limits[1])
    if low >= INT16.min and high <= INT16.max and (low < SURELY_HU or scaled.integral):
        return scaled.quantise((low, high), 1.0, 0.0), 1.0, 0.0, notes
    image, scale, shift = scaled.spread((low, high))
    first, last = percentiles(level_counts(image), 0.5, 99.5)
    if last - first < FEWEST_LEVELS:
        first, last = scaled.percentiles(0.5, 99.5)
        margin = 10 * (last - first)
        bounds = max(low, first - margin), min(high, last + margin)
        if margin > 0 and bounds != (low, high):
            notes.append(scaled.clipping_note(bounds))
            image, scale, shift = scaled.spread(bounds)
    return image, scale, shift, notes


def level_counts(image: NDArray[np.int16]) -> NDArray[np.int64]:
    """How often each of the values -32768 to 32767 occurs: [65536]; `image` is [Z, Y, X], in any order in memory."""
    counts = np.zeros(LEVELS, np.int64)
    for plane in planes_in_memory(image):
        counts += np.bincount(plane.view(np.uint16).ravel(), minlength=LEVELS)
    return np.roll(counts, LEVELS // 2)


def percentiles(counts: NDArray[np.int64], *percents: float) -> tuple[float, ...]:
    """As `np.percentile` of the image that the counts are of, in a tenth of the time."""
    ends = np.cumsum(counts)

    def value_at(rank: int) -> float:
        return float(np.searchsorted(ends, rank, side="right")) - LEVELS // 2

    values = []
    for percent in percents:
        rank, part = divmod(percent / 100 * (int(ends[-1]) - 1), 1)
        below, above = value_at(int(rank)), value_at(min(int(rank) + 1, int(ends[-1]) - 1))
        values.append(below + (above - below) * part)
    return tuple(values)
