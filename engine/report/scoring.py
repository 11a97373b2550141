"""Several networks on the same raw cases, and what the viewer shows of them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from datasets.labelled_cases import LabelledCase
from engine.comparable import refuse_another_kind
from engine.evaluation.evaluate import describe_evaluation
from engine.evaluation.score import RegionScores, Scores, score_case
from engine.evaluation.summaries import case_means
from engine.report.page import Viewer
from engine.report.viewer_case import TRUTH, Labels, ViewerCase, pack_case
from engine.reporting import EvaluatedNetwork
from engine.saved_segmenter import load_any
from engine.segmenter import Segmenter
from utils.errors import UserError
from utils.files import read_json


@dataclass(frozen=True)
class LoadedNetwork:
    """A network to report on: its name in the page, its file, and what that holds."""

    name: str
    path: Path
    segmenter: Segmenter
    checkpoint: Mapping[str, Any]


def load_networks(paths: Sequence[Path], names: Sequence[str], device: str) -> list[LoadedNetwork]:
    """The networks of checkpoints or exported files; UserError where tasks, labels or kinds of image differ."""
    networks = [LoadedNetwork(name, path, *load_any(path, device)) for name, path in zip(names, paths, strict=True)]
    first = networks[0].segmenter
    for other in networks[1:]:
        advice = "a report compares networks of one kind, so make one for each"
        refuse_another_kind(other.segmenter, other.path, first, networks[0].path, advice, but=("window",))
    return networks


def history_of(checkpoint: Path) -> list[dict[str, Any]]:
    """What training left next to a checkpoint; [] where it left nothing."""
    path = checkpoint.parent / "history.json"
    history = read_json(path) if path.exists() else []
    if not isinstance(history, list):
        raise UserError(f"{path}: is not a list, as training writes it; move it away")
    return history


SHOWN_CASES = 12
"""At most 10 MB each: a page of more takes a browser long to open."""


@dataclass
class WorstCases:
    """Keeps the cases with the lowest Dice, as the viewer reads them; most: how many, 0 for none."""

    most: int
    oriented: bool = True
    kept: list[tuple[float, ViewerCase]] = field(default_factory=list)

    def add(
        self, case: LabelledCase, segmenter: Segmenter, layers: Mapping[str, Labels], entries: Sequence[RegionScores]
    ) -> None:
        """layers: what each network predicts; entries: what they scored."""
        if not self.most:
            return
        dice = case_means(entries)[case.name]
        order = np.inf if np.isnan(dice) else dice
        if len(self.kept) == self.most and order >= self.kept[-1][0]:
            return
        truth = segmenter.label_map.encode(case.label)
        packed = pack_case(case, {TRUTH: truth, **layers}, case.window, segmenter.hounsfield, self.oriented)
        self.kept = sorted([*self.kept, (order, packed)], key=lambda pair: pair[0])[: self.most]

    def viewer(self, segmenter: Segmenter, names: Sequence[str]) -> Viewer:
        return Viewer([TRUTH, *names], segmenter.label_map.regions, [case for _, case in self.kept])


def score_networks(
    networks: Sequence[LoadedNetwork], cases: Iterable[LabelledCase], worst: WorstCases, batch_size: int = 8
) -> list[EvaluatedNetwork]:
    """Score each case by every network, whole volumes; the cases are in the first network's window."""
    scores = {network.name: Scores([], [], {}, {}) for network in networks}
    seconds = dict.fromkeys(scores, 0.0)
    for case in cases:
        layers, entries = {}, []
        for network in networks:
            started = time.perf_counter()
            layers[network.name], of_case = score_one(network.segmenter, case, batch_size)
            seconds[network.name] += time.perf_counter() - started
            scores[network.name].add(case)
            scores[network.name].volumes.extend(of_case)
            entries += of_case
        worst.add(case, networks[0].segmenter, layers, entries)
    return [evaluated(network, scores[network.name], seconds[network.name]) for network in networks]


def show_scored(
    networks: Sequence[LoadedNetwork],
    scored: Sequence[EvaluatedNetwork],
    cases: Iterable[LabelledCase],
    worst: WorstCases,
    batch_size: int = 8,
) -> None:
    """Give `worst` what networks predict for cases whose scores are known; scored: the networks with these."""
    for case in cases:
        entries = [entry for network in scored for entry in network.cases if entry["case"] == case.name]
        layers = {
            network.name: network.segmenter.segment(case.image, network.segmenter.window or case.window, batch_size)
            for network in networks
        }
        worst.add(case, networks[0].segmenter, layers, entries)


def score_one(segmenter: Segmenter, case: LabelledCase, batch_size: int) -> tuple[Labels, list[RegionScores]]:
    """What a network predicts for a case, in the network's own window where it has one, and the scores."""
    predicted: list[Labels] = []
    own = replace(case, window=segmenter.window or case.window)
    entries = score_case(segmenter, own, batch_size, show=lambda _, labels, __: predicted.append(labels))
    return predicted[0], entries


def evaluated(network: LoadedNetwork, scores: Scores, seconds: float) -> EvaluatedNetwork:
    """The network with its scores of whole volumes, the seconds that these took, and its history."""
    path, segmenter = network.path, network.segmenter
    result = describe_evaluation(scores, "whole volumes", path, segmenter, network.checkpoint, seconds)
    return EvaluatedNetwork(network.name, result, history_of(path), scores.volumes)
