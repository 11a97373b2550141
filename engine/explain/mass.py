"""How much of a network's attention lies inside the target, next to the share of the area that the target has.

The mass of a map A >= 0 is the sum of A over the target's pixels by its sum over all of them. A map that is the same
everywhere has the target's share of what the network sees: the chance level. Both are means over a case's slices with
the target, then over cases; slices whose map is all zero have no mass, are left out of both and are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from engine.benchmark.statistics import bootstrap_interval, compare

KEYS = ["method", "layer", "network"]


@dataclass(frozen=True)
class CaseAttention:
    """slices: with the target; empty: those of them whose map is all zero; mass, chance: NaN if all are."""

    case: str
    network: str
    layer: str
    method: str
    slices: int
    empty: int
    mass: float
    chance: float


def attention_mass(maps: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[N, L] of maps [N, L, H, W] and targets [N, H, W]: the share of each map inside; NaN where it is all zero."""
    total = maps.sum(axis=(2, 3), dtype=np.float64)
    within = (maps * inside[:, None]).sum(axis=(2, 3), dtype=np.float64)
    shares: NDArray[np.float64] = np.divide(within, total, out=np.full(within.shape, np.nan), where=total > 0)
    return shares


def mean_of_case(
    masses: NDArray[np.float64], chances: NDArray[np.float64], case: str, network: str, layer: str, method: str
) -> CaseAttention:
    """One line of a case from its slices' masses and chance levels, both [N]."""
    drawn = ~np.isnan(masses)
    means = (float(values[drawn].mean()) if drawn.any() else np.nan for values in (masses, chances))
    return CaseAttention(case, network, layer, method, len(masses), int((~drawn).sum()), *means)


def summarise_attention(lines: Sequence[CaseAttention]) -> list[dict[str, Any]]:
    """For each method, layer and network: means over cases, a 95 % interval over cases, and counts.

    low, high: of the mass; None for fewer than two cases. times_chance: mean mass by mean chance level.
    """
    table = pd.DataFrame([asdict(line) for line in lines])
    summaries = []
    for key, of_one in table.groupby(KEYS, sort=False):
        mass, chance = of_one["mass"].to_numpy(), of_one["chance"].to_numpy()
        cases = int((~np.isnan(mass)).sum())
        low, high = bootstrap_interval([mass[None]]) if cases > 1 else (np.nan, np.nan)
        mean, level = (_mean(values) for values in (mass, chance))
        summaries.append(
            dict(zip(KEYS, key, strict=True))
            | _finite(mass=mean, low=low, high=high, chance=level, times_chance=mean / level if level else np.nan)
            | {"cases": cases, "slices": int(of_one["slices"].sum()), "empty": int(of_one["empty"].sum())}
        )
    return summaries


def compare_networks(lines: Sequence[CaseAttention], network: str, baseline: str) -> list[dict[str, Any]]:
    """For each method and layer: how much more mass a network has inside the target than another, paired over cases."""
    table = pd.DataFrame([asdict(line) for line in lines])
    differences = []
    for (method, layer), of_one in table.groupby(KEYS[:2], sort=False):
        by_case = of_one.pivot(index="case", columns="network", values="mass")
        of_network, of_baseline = ([by_case[[name]].to_numpy().T] for name in (network, baseline))
        result = compare(of_network, of_baseline)
        numbers = _finite(gain=result.gain, low=result.low, high=result.high, p=result.p)
        differences.append({"method": method, "layer": layer, **numbers, "cases": result.cases})
    return differences


def _mean(values: Iterable[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else np.nan


def _finite(**numbers: float) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: float(value) if np.isfinite(value) else None for name, value in numbers.items()}
