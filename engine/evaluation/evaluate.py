"""Scores over cases: whole volumes, archived slices, and the published slice protocol."""

from __future__ import annotations

import csv
import math
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.labelled_cases import LabelledCase
from engine.evaluation.metrics import METRICS, case_scores, published_scores, summary
from engine.segmenter import Segmenter
from utils.files import atomic_write

CaseScores = dict[str, Any]

PUBLISHED_METRICS = ("dice", "published_voe", "rvd")
PUBLISHED_THRESHOLD = 0.4


def score_case(
    segmenter: Segmenter, case: LabelledCase, batch_size: int = 8, threshold: float | None = None
) -> list[CaseScores]:
    """One row for each region: case, region, slices, seconds, the metrics, and what the crop lost."""
    started = time.perf_counter()
    predicted = segmenter.segment(case.image, case.window, batch_size, threshold)
    seconds = time.perf_counter() - started
    reference = segmenter.label_map.encode(case.label)
    rows = []
    for region, classes in segmenter.label_map.regions.items():
        truth = np.isin(reference, classes)
        lost = int(segmenter.frame.lost(torch.from_numpy(truth)))
        rows.append(
            {
                "case": case.name,
                "region": region,
                "slices": len(case.image),
                "seconds": seconds,
                **case_scores(np.isin(predicted, classes), truth, case.spacing),
                "crop_lost": lost / int(truth.sum()) if truth.any() else math.nan,
            }
        )
    return rows


def score_case_as_published(segmenter: Segmenter, case: LabelledCase, batch_size: int = 8) -> list[CaseScores]:
    """The published slice protocol: slices picked by the ground truth, p > 0.4, inside the crop only."""
    reference = segmenter.label_map.encode(case.label)
    picked = np.flatnonzero(segmenter.label_map.target(case.label).any(axis=(1, 2)))
    counts = {region: np.zeros(3) for region in segmenter.label_map.regions}
    for part, probabilities in segmenter.framed_probabilities(case.image[picked], case.window, batch_size):
        truth = segmenter.frame.labels(torch.from_numpy(reference[picked[part]])).to(probabilities.device)
        for region, classes in segmenter.label_map.regions.items():
            predicted = probabilities[:, list(classes)].sum(dim=1) > PUBLISHED_THRESHOLD
            true = torch.isin(truth, torch.tensor(classes, device=truth.device, dtype=truth.dtype))
            counts[region] += [float(mask.sum()) for mask in (predicted, true, predicted & true)]
    rows = []
    for region, pixels in counts.items():
        scores = published_scores(*map(float, pixels))
        rows.append(
            {
                "case": case.name,
                "region": region,
                "slices": len(picked),
                **(scores or dict.fromkeys(PUBLISHED_METRICS, math.nan)),
            }
        )
    return rows


def summarise(rows: Sequence[CaseScores], metrics: Sequence[str] = (*METRICS, "crop_lost")) -> dict[str, Any]:
    """For each region and metric: mean, standard deviation and count over cases."""
    regions = dict.fromkeys(row["region"] for row in rows)
    return {
        region: {metric: summary([row.get(metric) for row in rows if row["region"] == region]) for metric in metrics}
        for region in regions
    }


def mean_dice(rows: Sequence[CaseScores]) -> float:
    """The mean over regions of the mean per-case Dice, where defined: what picks the best checkpoint. Else NaN."""
    means = [region["dice"]["mean"] for region in summarise(rows, ("dice",)).values()]
    defined = [mean for mean in means if mean is not None]
    return sum(defined) / len(defined) if defined else math.nan


def training_notice(checkpoint: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Those of the cases that the network was trained or validated on; told on stderr if there are any."""
    names = list(names)
    seen = sorted({*checkpoint["cases"]["train"], *checkpoint["cases"]["val"]} & set(names))
    if seen:
        print(
            f"note: {len(seen)} of these {len(names)} cases chose or trained the network: {', '.join(seen)}",
            file=sys.stderr,
        )
    return seen


def slices_per_second(rows: Sequence[CaseScores]) -> float:
    """Throughput from source pixels to labels, each case counted once."""
    cases = {row["case"]: row for row in rows}.values()
    return float(sum(row["slices"] for row in cases) / max(sum(row["seconds"] for row in cases), 1e-9))


def write_csv(path: Path, rows: Sequence[CaseScores]) -> None:
    """One line for each case and region; undefined is nan, not available is empty."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(
            {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows
        )


def format_summary(result: dict[str, Any]) -> str:
    """The summary as lines for a terminal."""
    lines = []
    for region, metrics in result.items():
        for metric, value in metrics.items():
            if value["mean"] is None:
                lines.append(f"{region:>12} {metric:<14} not available")
            else:
                spread = "" if value["std"] is None else f" ± {value['std']:.4f}"
                lines.append(f"{region:>12} {metric:<14} {value['mean']:.4f}{spread}  ({value['count']} cases)")
    return "\n".join(lines)
