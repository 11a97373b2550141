"""Scores over cases: mean, standard deviation and count of what is defined."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from engine.evaluation.metrics import METRICS
from engine.evaluation.score import RegionScores

Summary = dict[str, dict[str, dict[str, Any]]]
"""Region -> metric -> {"mean", "std", "count"}."""


def summarise(entries: Sequence[RegionScores], metrics: Sequence[str] = (*METRICS, "crop_lost")) -> Summary:
    """Every region's metrics over cases."""
    regions = dict.fromkeys(entry["region"] for entry in entries)
    return {
        region: {
            metric: mean_std_count(entry.get(metric) for entry in entries if entry["region"] == region)
            for metric in metrics
        }
        for region in regions
    }


def mean_std_count(values: Iterable[float | None]) -> dict[str, float | int | None]:
    """Mean, standard deviation (n - 1) and count of what is defined; None where that is too little."""
    defined = np.array([value for value in values if value is not None and not math.isnan(value)])
    return {
        "mean": float(defined.mean()) if len(defined) else None,
        "std": float(defined.std(ddof=1)) if len(defined) > 1 else None,
        "count": len(defined),
    }


def mean_dice(entries: Sequence[RegionScores]) -> float:
    """The mean over regions of the mean per-case Dice, where defined, else NaN: it picks the best checkpoint."""
    means = [region["dice"]["mean"] for region in summarise(entries, ("dice",)).values()]
    defined = [mean for mean in means if mean is not None]
    return sum(defined) / len(defined) if defined else math.nan


def case_means(entries: Sequence[RegionScores], metric: str = "dice") -> dict[str, float]:
    """Case -> the mean of a metric over its regions, where defined, else NaN.

    Dice, with the chosen decision or without, is of regions that the reference has: without one it would be 0 or
    undefined by the prediction alone.
    """
    values: dict[str, list[float]] = {entry["case"]: [] for entry in entries}
    for entry in entries:
        if entry[metric] is not None and not (metric in ("dice", "argmax_dice") and entry["reference_voxels"] == 0):
            values[entry["case"]].append(entry[metric])
    return {case: sum(defined) / len(defined) if defined else math.nan for case, defined in values.items()}


def format_summary(summary: Summary) -> str:
    """A line for each region and metric."""
    lines = []
    for region, metrics in summary.items():
        for metric, value in metrics.items():
            text = "not available"
            if value["mean"] is not None:
                deviation = "" if value["std"] is None else f" ± {value['std']:.4f}"
                text = f"{value['mean']:.4f}{deviation}  ({value['count']} cases)"
            lines.append(f"{region:>12} {metric:<14} {text}")
    return "\n".join(lines)
