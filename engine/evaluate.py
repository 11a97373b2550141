"""Scores over cases: whole volumes, archived slices, and the published slice protocol."""

from __future__ import annotations

import csv
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.archive import Archive
from datasets.layout import Layout, match_case
from datasets.volume import read_volume
from datasets.window import volume_window
from engine.metrics import METRICS, case_scores, published_scores, summary
from engine.segmenter import Segmenter
from utils.errors import UserError
from utils.files import whole_file

CaseScores = dict[str, Any]

PUBLISHED_METRICS = ("dice", "published_voe", "rvd")
PUBLISHED_THRESHOLD = 0.4


@dataclass
class LabelledCase:
    """image: int16 [N, H, W]; label: uint8, the source's labels; window in the image's stored units.

    spacing: (z, y, x) in mm; None unless it is known and the slices are neighbours.
    """

    name: str
    image: NDArray[np.int16]
    label: NDArray[np.uint8]
    spacing: tuple[float, float, float] | None
    window: tuple[float, float]


def archived_cases(
    archive: Archive, names: Iterable[str], window: tuple[float, float] | None
) -> Iterator[LabelledCase]:
    """Cases from a slice archive, by their names in any layout. Millimetres only where every slice is there."""
    names = list(dict.fromkeys(match_case(name, archive.cases) for name in names))
    if missing := sorted(set(names) - set(archive.cases)):
        raise UserError(f"{archive.folder}: no slices of {', '.join(missing)}; it has {', '.join(archive.cases)}")
    for name in names:
        image, label = archive.read_case(name)
        spacing = archive.spacing(name) if archive.complete(name) else None
        yield LabelledCase(name, image, label, spacing, archive.window(name, window))


def raw_cases(
    layout: Layout, root: Path, names: Sequence[str] | None, window: tuple[float, float] | None
) -> Iterator[LabelledCase]:
    """Labelled cases read from the source's own files, by their names in any layout; None takes all with a label."""
    cases = {case.name: case for case in layout.find(root) if case.label is not None}
    chosen = sorted(cases) if names is None else list(dict.fromkeys(match_case(name, cases) for name in names))
    if missing := sorted(set(chosen) - set(cases)):
        raise UserError(f"{root}: no labelled case {', '.join(missing)}; it holds {', '.join(sorted(cases))}")
    if not cases:
        raise UserError(f"{root}: no case has a segmentation, so there is nothing to score; use predict.py")
    for name in chosen:
        volume = read_volume(cases[name], layout.labels)
        assert volume.label is not None
        yield LabelledCase(name, volume.image, volume.label, volume.spacing, volume_window(volume, window))


def score_case(
    segmenter: Segmenter, case: LabelledCase, batch_size: int = 8, threshold: float | None = None
) -> list[CaseScores]:
    """One row for each region: case, region, slices, seconds, the metrics, and what the crop lost."""
    started = time.perf_counter()
    predicted = segmenter.segment(case.image, case.window, batch_size, threshold)
    seconds = time.perf_counter() - started
    reference = segmenter.task.encode(case.label)
    rows = []
    for region, classes in segmenter.task.regions.items():
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
    reference = segmenter.task.encode(case.label)
    picked = np.flatnonzero(segmenter.task.target(case.label).any(axis=(1, 2)))
    counts = {region: np.zeros(3) for region in segmenter.task.regions}
    for part, probabilities in segmenter.framed_probabilities(case.image[picked], case.window, batch_size):
        truth = segmenter.frame.labels(torch.from_numpy(reference[picked[part]])).to(probabilities.device)
        for region, classes in segmenter.task.regions.items():
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
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
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
