"""Networks with scores, and a case to look at, from arrays alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from datasets.labelled_cases import LabelledCase
from datasets.labels import organ_and_tumor
from engine.evaluation.metrics import overlap_scores, voxel_counts
from engine.report.page import Viewer
from engine.report.viewer_case import TRUTH, Labels, pack_case
from engine.reporting import EvaluatedNetwork

ALL = organ_and_tumor()["all"]
WINDOW = (-200.0, 300.0)


def labelled_case(name: str, shift: int = 0) -> LabelledCase:
    """Noise, in it an organ with a tumour that lies further on for a higher shift; the slices are 40 x 48."""
    label = np.zeros((12, 40, 48), np.uint8)
    label[3:9, 8:30, 10:30] = 1
    label[4:8, 12 + shift : 20 + shift, 14:22] = 2
    image = np.random.default_rng(shift).normal(40, 30, label.shape).astype(np.int16)
    return LabelledCase(name, image, label, (3.0, 0.8, 0.8), WINDOW)


def scores_of(name: str, truth: Labels, predicted: Labels) -> list[dict[str, Any]]:
    """As `score_case` has them, without distances."""
    entries = []
    for region, classes in ALL.regions.items():
        masks = np.isin(predicted, classes), np.isin(truth, classes)
        found, true, shared = voxel_counts(*masks)
        counts = {"reference_voxels": true, "predicted_voxels": found, "voxel_mm3": 1.92}
        entries.append({"case": name, "region": region, **counts, **overlap_scores(found, true, shared)})
    return [{**entry, "hd95_mm": math.nan, "argmax_dice": entry["dice"]} for entry in entries]


def network(name: str, entries: list[dict[str, Any]], seen: tuple[str, ...] = ()) -> EvaluatedNetwork:
    result = {"protocol": "whole volumes", "model": "enet", "task": "all", "config": {"dataset": "kits"}}
    result |= {"seen_in_training": list(seen), "parameters": 360_000, "gmacs": 0.5, "slices_per_second": 9.0}
    history = [{"step": 5 * i, "train": {"focal": 0.1, "dice": 0.4 / i}, "score": 0.3 * i} for i in (1, 2)]
    return EvaluatedNetwork(name, result, history, entries)


def two_networks(cases: list[str], names: tuple[str, str]) -> tuple[list[EvaluatedNetwork], Viewer]:
    """The first misses every tumour, the second misplaces it by as many rows as the case has before it."""
    entries: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    shown = []
    for shift, case in enumerate(map(labelled_case, cases, range(len(cases)))):
        layers = {names[0]: case.label.clip(0, 1), names[1]: np.roll(case.label, shift, axis=1)}
        for name, labels in layers.items():
            entries[name] += scores_of(case.name, case.label, labels)
        shown.append(pack_case(case, {TRUTH: case.label, **layers}, WINDOW, hounsfield=True, oriented=True))
    viewer = Viewer([TRUTH, *names], ALL.regions, shown)
    return [network(name, entries[name]) for name in names], viewer
