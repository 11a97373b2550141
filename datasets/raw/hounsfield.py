"""Whether the intensities of a CT can be Hounsfield units, judged in physical units.

Air is at -1000 HU and soft tissue near 40, and most of a CT is one of the two.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.raw.intensities import HU_RANGE, INT16, percentiles
from datasets.raw.layout import Case
from datasets.raw.modality import is_other
from utils.errors import UserError

USUAL_HU = (-2048.0, 16383.0)
# Fat and soft tissue alone are further apart.
LEAST_CONTRAST = 50.0
AIR, MISSING_AIR = (-1200.0, -500.0), 0.001
# A body with 1024 added: air near 0 and soft tissue near 1064, with little between them and bone.
BIN = 20
SHIFTED_AIR, BETWEEN, SHIFTED_TISSUE = (-100.0, 200.0), (300.0, 800.0), (900.0, 1240.0)
LEAST_TISSUE, LEAST_PEAK = 0.05, 3.0
SOFT_TISSUE = (-200.0, 200.0)
# The share of voxels that have one and the same value where an image was cut off at it.
CUT_OFF = 0.01
ANY_INTENSITY = "or take it as it is with --any_intensity"


def refuse_modality(case: Case) -> None:
    """UserError if the data set names the image's channel PET or MR, where a CT is expected."""
    if is_other(case.modality or ""):
        if case.files:
            raise UserError(f"{case.image}: is a series of {case.modality}, but CT is expected; give a CT series")
        raise UserError(
            f"{case.image}: its data set calls it {case.modality}, but CT is expected; make the CT the first channel, "
            f"{ANY_INTENSITY}"
        )


def check_hounsfield(
    counts: NDArray[np.int64], scale: float, shift: float, path: Path, any_intensity: bool
) -> list[str]:
    """Notes on what is unusual for a CT; UserError if its intensities can't be HU, unless `any_intensity`.

    counts: [65536] voxels of each stored int16; HU = stored * scale + shift.
    """
    hu = np.arange(INT16.min, INT16.max + 1, dtype=np.float64) * scale + shift
    ends = percentiles(counts, 0, 0.1, 99.9, 100)
    lowest, least, most, highest = (level * scale + shift for level in ends)
    if lowest > -scale / 2 and most < 1 + scale / 2 and not any_intensity:
        raise UserError(
            f"{path}: its intensities are {lowest:.3g} to {highest:.3g}, which can't be HU; give the CT as it was "
            f"before it was normalised, {ANY_INTENSITY}"
        )
    if peaks := _shifted_peaks(counts, hu):
        where = " and ".join(f"{what} is at {value:g}, not {usual}" for what, value, usual in peaks)
        return [f"as if 1024 had been added to HU: {where}; subtract 1024, or set scl_inter to -1024 in the header"]
    if most - least < LEAST_CONTRAST:
        return [f"HU from {lowest:.4g} to {highest:.4g} only, as if normalised; give the CT as it was before"]
    if (lowest < USUAL_HU[0] and lowest != HU_RANGE[0]) or (highest > USUAL_HU[1] and highest != HU_RANGE[1]):
        return [f"unusual HU: {lowest:.6g} to {highest:.6g}"]  # What was clipped has a note.
    if _share(counts, hu, AIR) < MISSING_AIR:
        held = counts[counts > 0] / counts.sum()
        cut_off = ", as if cut to a window: what lies beyond is lost" if max(held[0], held[-1]) > CUT_OFF else ""
        return [f"HU from {lowest:.4g} to {highest:.4g}, without air{cut_off}"]
    return []


def looks_like_hounsfield(counts: NDArray[np.int64], scale: float, shift: float) -> bool:
    """Whether much of an image is where air is in CT, and much where soft tissue is. counts: as `check_hounsfield`."""
    hu = np.arange(INT16.min, INT16.max + 1, dtype=np.float64) * scale + shift
    return min(_share(counts, hu, AIR), _share(counts, hu, SOFT_TISSUE)) > LEAST_TISSUE


def _shifted_peaks(counts: NDArray[np.int64], hu: NDArray[np.float64]) -> list[tuple[str, float, int]]:
    """Soft tissue and air, where they are and should be, if they are where adding 1024 puts them."""
    if _share(counts, hu, AIR) > CUT_OFF:
        return []
    tissue, tissue_share = _peak(counts, hu, SHIFTED_TISSUE)
    between = _share(counts, hu, BETWEEN) * BIN / (BETWEEN[1] - BETWEEN[0])
    if _share(counts, hu, SHIFTED_TISSUE) < LEAST_TISSUE or tissue_share < LEAST_PEAK * between:
        return []
    air, air_share = _peak(counts, hu, SHIFTED_AIR)
    return [("soft tissue", tissue, 40), *([("air", air, -1000)] if air_share > CUT_OFF else [])]


def _share(counts: NDArray[np.int64], hu: NDArray[np.float64], bounds: tuple[float, float]) -> float:
    low, high = bounds
    return float(counts[(hu >= low) & (hu < high)].sum() / counts.sum())


def _peak(counts: NDArray[np.int64], hu: NDArray[np.float64], bounds: tuple[float, float]) -> tuple[float, float]:
    """The middle of the fullest bin of `BIN` HU within `bounds`, and the share of all voxels that it holds."""
    edges = np.arange(bounds[0], bounds[1] + 1, BIN)
    held, _ = np.histogram(hu, edges, weights=counts)
    fullest = int(held.argmax())
    return float(edges[fullest] + BIN / 2), float(held[fullest] / counts.sum())
