"""Scores of cases: the one scorer of validation, `--mode test`, scripts/evaluate.py and the benchmark."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.labelled_cases import LabelledCase
from engine.evaluation.calibration import CalibrationError
from engine.evaluation.metrics import Mask, case_scores, overlap_scores, published_scores, voxel_counts
from engine.segmenter import Segmenter

RegionScores = dict[str, Any]
"""One region of one case: what it is of, and its metrics; NaN is undefined, None not available."""
Show: TypeAlias = Callable[[LabelledCase, NDArray[np.uint8], list[RegionScores]], None]
"""What gets each case with the class indices [N, H, W] predicted for it, and their scores."""

PUBLISHED_METRICS = ("dice", "published_voe", "rvd")
PUBLISHED_THRESHOLD = 0.4


class Scores(NamedTuple):
    """An entry for each case and region, by each protocol; empty where a protocol was not asked for.

    files: of each case, those that were read; notes: what is unusual in them, of cases of which there is something to
    say; digests: of the files of cases whose files are not named.
    """

    volumes: list[RegionScores]
    slice_protocol: list[RegionScores]
    files: dict[str, list[Path]]
    notes: dict[str, list[str]]
    digests: Mapping[str, str] = MappingProxyType({})

    def add(self, case: LabelledCase) -> None:
        """What is kept of a case besides its scores."""
        self.files[case.name] = case.files
        if case.notes:
            self.notes[case.name] = case.notes

    def joined(self) -> list[RegionScores]:
        """The entries of both as one, the slice protocol's metrics as `slice_...`; undefined is None, for JSON."""
        joined = []
        for entry, published in zip(self.volumes, self.slice_protocol, strict=True):
            both = {**entry, **{f"slice_{metric}": published[metric] for metric in PUBLISHED_METRICS}}
            joined.append({key: None if _is_nan(value) else value for key, value in both.items()})
        return joined


def score_cases(
    segmenter: Segmenter,
    cases: Iterable[LabelledCase],
    *,
    batch_size: int = 8,
    threshold: float | None = None,
    distances: bool = True,
    calibration: bool = True,
    volumes: bool = True,
    slice_protocol: bool = False,
    show: Show | None = None,
) -> Scores:
    """Score cases by one protocol or both; threshold to calibration, and show, belong to `volumes` (`score_case`)."""
    scores = Scores([], [], {}, {})
    for case in cases:
        scores.add(case)
        of_case = segmenter.for_case(case.name, case.stored_as)
        if volumes:
            scores.volumes.extend(score_case(of_case, case, batch_size, threshold, distances, calibration, show))
        if slice_protocol:
            scores.slice_protocol.extend(score_case_as_published(of_case, case, batch_size))
    return scores


def score_case(
    segmenter: Segmenter,
    case: LabelledCase,
    batch_size: int = 8,
    threshold: float | None = None,
    distances: bool = True,
    calibration: bool = True,
    show: Show | None = None,
) -> list[RegionScores]:
    """All slices of a case: time, voxel counts, metrics, and the share of the reference that the crop lost.

    `argmax_dice` is the Dice of the most probable class, without offsets and threshold; `ece` the expected calibration
    error of the region's probability. distances: False scores overlap only, as where the spacing is unknown; it is
    many times faster. calibration: False leaves `ece` out. `voxel_mm3` turns counts of voxels into volumes.
    """
    reference = segmenter.label_map.encode(case.label)
    truths = {region: np.isin(reference, classes) for region, classes in segmenter.label_map.regions.items()}
    predicted = _predict(segmenter, case, truths if calibration else {}, batch_size, threshold)
    entries = []
    for region, classes in segmenter.label_map.regions.items():
        truth = truths[region]
        scores = case_scores(np.isin(predicted.labels, classes), truth, case.spacing if distances else None)
        argmax_dice = scores["dice"]
        if predicted.argmax is not predicted.labels:
            argmax_dice = overlap_scores(*voxel_counts(np.isin(predicted.argmax, classes), truth))["dice"]
        lost = int(segmenter.frame.lost(torch.from_numpy(truth)))
        voxels = scores["reference_voxels"]
        entries.append(
            {
                "case": case.name,
                "region": region,
                "slices": len(case.image),
                "seconds": predicted.seconds,
                **scores,
                "argmax_dice": argmax_dice,
                "ece": predicted.ece.get(region),
                "crop_lost": lost / voxels if voxels else math.nan,
                "voxel_mm3": math.prod(case.spacing) if case.spacing else None,
            }
        )
    if show is not None:
        show(case, predicted.labels, entries)
    return entries


class _Predicted(NamedTuple):
    """labels, argmax: class indices [N, H, W], as decided and of the most probable class, one array where these are
    the same; ece: by region; seconds: from pixels to labels.
    """

    labels: NDArray[np.uint8]
    argmax: NDArray[np.uint8]
    ece: dict[str, float]
    seconds: float


def _predict(
    segmenter: Segmenter, case: LabelledCase, truths: Mapping[str, Mask], batch_size: int, threshold: float | None
) -> _Predicted:
    """truths: the reference of each region whose calibration is measured."""
    plain = replace(segmenter, offsets=())
    labels = np.empty(case.image.shape, np.uint8)
    argmax = labels if threshold is None and not any(segmenter.offsets) else np.empty_like(labels)
    errors = {region: CalibrationError() for region in truths}
    seconds, started = 0.0, time.perf_counter()
    for part, probabilities in segmenter.probabilities(case.image, case.window, batch_size):
        labels[part] = segmenter.decide(probabilities, threshold)
        seconds += time.perf_counter() - started
        if argmax is not labels:
            argmax[part] = plain.decide(probabilities)
        for region, truth in truths.items():
            probability = probabilities[:, list(segmenter.label_map.regions[region])].sum(dim=1)
            errors[region].add(probability, torch.from_numpy(truth[part]))
        started = time.perf_counter()
    return _Predicted(labels, argmax, {region: error.value() for region, error in errors.items()}, seconds)


def score_case_as_published(segmenter: Segmenter, case: LabelledCase, batch_size: int = 8) -> list[RegionScores]:
    """The published slice protocol: slices picked by the ground truth, p > 0.4, inside the crop only."""
    reference = segmenter.label_map.encode(case.label)
    picked = np.flatnonzero(segmenter.label_map.target(case.label).any(axis=(1, 2)))
    counts = {region: np.zeros(3) for region in segmenter.label_map.regions}
    for part, probabilities in segmenter.probabilities_of(case.image, picked, case.window, batch_size):
        truth = segmenter.frame.labels(torch.from_numpy(reference[picked[part]])).to(probabilities.device)
        for region, classes in segmenter.label_map.regions.items():
            predicted = probabilities[:, list(classes)].sum(dim=1) > PUBLISHED_THRESHOLD
            true = torch.isin(truth, torch.tensor(classes, device=truth.device, dtype=truth.dtype))
            counts[region] += [float(mask.sum()) for mask in (predicted, true, predicted & true)]
    entries = []
    for region, pixels in counts.items():
        scores = published_scores(*map(float, pixels)) or dict.fromkeys(PUBLISHED_METRICS, math.nan)
        entries.append({"case": case.name, "region": region, "slices": len(picked), **scores})
    return entries


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
