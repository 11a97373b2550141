"""Offsets of the logits: what they decide, how they are chosen, and their way through a checkpoint to the commands."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.frame import Frame
from datasets.labelled_cases import LabelledCase
from datasets.labels import LabelMap
from engine.evaluation.calibration import CalibrationError
from engine.evaluation.decision import GRID, Decision, choose_offsets
from engine.evaluation.score import score_case, score_cases
from engine.evaluation.summaries import mean_dice
from engine.saved_segmenter import load_segmenter
from engine.segmenter import Segmenter
from networks import NETWORKS
from networks.contract import Features, SegmentationNetwork
from tests.commands import in_process, output_of
from tests.data import kits_case
from tests.small import write_bare_archive
from utils.files import read_json

ALL = LabelMap("all", ("organ", "tumor"), ((1,), (2,)), {"organ": (1, 2), "tumor": (2,)})
TUMOR = LabelMap("tumor", ("tumor",), ((2,),), {"tumor": (1,)})
THRESHOLDS = np.arange(1, 20) / 20
WINDOW = (-1000.0, 1000.0)
CPU = torch.device("cpu")


class Grey(SegmentationNetwork):
    """Foreground logits are multiples of the windowed image, each with its own slope and bias; background is 0."""

    def __init__(self, classes: int, pretrained: bool = False) -> None:
        super().__init__(classes)
        self.slopes = torch.nn.Parameter(torch.linspace(6, 9, classes - 1))
        self.biases = torch.nn.Parameter(torch.linspace(-2, -4, classes - 1))

    def features(self, image: Tensor) -> Features:
        foreground = image * self.slopes[:, None, None] + self.biases[:, None, None]
        return Features((), (), torch.cat([torch.zeros_like(image), foreground], dim=1))


def grey(label_map: LabelMap, frame: Frame | None = None) -> Segmenter:
    return Segmenter(Grey(label_map.num_classes), "grey", "kits", label_map, frame or Frame(0, 0), WINDOW)


def noisy_cases(count: int = 3, shape: tuple[int, int, int] = (3, 20, 24)) -> list[LabelledCase]:
    """Images that tell of their labels, with much noise; the last case has no tumour."""
    cases = []
    for seed in range(count):
        draws = np.random.default_rng(seed)
        label = draws.choice(3, shape, p=[0.6, 0.25, 0.15]).astype(np.uint8)
        if seed == count - 1:
            label[label == 2] = 1
        image = (400.0 * label - 500 + draws.normal(0, 300, shape)).clip(-1000, 1000).astype(np.int16)
        cases.append(LabelledCase(str(seed), image, label, None, WINDOW))
    return cases


def softmax_of(case: LabelledCase, classes: int) -> NDArray[np.float64]:
    """[C, N, H, W] by NumPy, in float64: what `Grey` says of a case in a frame that changes nothing."""
    x = case.image / 1000
    slopes, biases = np.linspace(6, 9, classes - 1), np.linspace(-2, -4, classes - 1)
    logits = np.stack([np.zeros_like(x), *(x * slope + bias for slope, bias in zip(slopes, biases, strict=True))])
    return np.exp(logits) / np.exp(logits).sum(axis=0)


def dice_of(decided: NDArray[Any], reference: NDArray[Any], regions: dict[str, tuple[int, ...]]) -> list[float]:
    scores = []
    for classes in regions.values():
        p, r = np.isin(decided, classes), np.isin(reference, classes)
        scores.append(2 * (p & r).sum() / (p.sum() + r.sum()) if p.any() or r.any() else math.nan)
    return scores


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_of_two_classes_an_offset_is_a_threshold(threshold: float) -> None:
    probability = torch.rand(2, 30, 30, generator=torch.Generator().manual_seed(0))
    # Away from the threshold itself, where rounding decides.
    probability = probability[None].where((probability - threshold).abs() > 1e-6, torch.ones(()))[0]
    probabilities = torch.stack([1 - probability, probability], dim=1)
    segmenter = replace(grey(TUMOR), offsets=(math.log((1 - threshold) / threshold),))
    assert np.array_equal(segmenter.decide(probabilities), probability.numpy() > threshold)
    assert np.array_equal(segmenter.decide(probabilities), grey(TUMOR).decide(probabilities, threshold))
    assert segmenter.describe_decision() == f"foreground where its probability exceeds {threshold:.4g}"


def test_three_classes_by_hand() -> None:
    """Factors 1, 2 and 1/2: 0.5 0.6 0.1; 0.4 0.2 0.25; 0.1 0.2 0.4."""
    columns = [(0.5, 0.3, 0.2), (0.4, 0.1, 0.5), (0.1, 0.1, 0.8)]
    probabilities = torch.tensor(columns).T[None, :, None]
    segmenter = replace(grey(ALL), offsets=(math.log(2), math.log(0.5)))
    assert segmenter.decide(probabilities).tolist() == [[[1, 0, 2]]]
    assert replace(segmenter, offsets=()).decide(probabilities).tolist() == [[[0, 2, 2]]]
    # A threshold goes before the offsets: foreground is 0.5, 0.6, 0.9.
    assert segmenter.decide(probabilities, threshold=0.55).tolist() == [[[0, 2, 2]]]
    described = "the most probable class, with organ +0.69, tumor -0.69 on the logits"
    assert segmenter.describe_decision() == described
    assert segmenter.describe_decision(0.55) == "foreground where its probability exceeds 0.55"


def test_the_chosen_threshold_is_that_of_a_search_by_numpy() -> None:
    cases = noisy_cases()
    decision = choose_offsets(grey(TUMOR), lambda: cases, batch_size=2)
    by_threshold = [
        np.nanmean([dice_of(softmax_of(case, 2)[1] > t, case.label == 2, {"tumor": (1,)}) for case in cases])
        for t in THRESHOLDS
    ]
    best = int(np.argmax(by_threshold))
    assert by_threshold[best] > by_threshold[9] + 0.05
    assert decision.offsets == pytest.approx([math.log((1 - THRESHOLDS[best]) / THRESHOLDS[best])])
    assert decision.dice == pytest.approx(by_threshold[best], abs=1e-9)
    assert decision.argmax_dice == pytest.approx(by_threshold[9], abs=1e-9)


def test_several_classes_are_chosen_one_after_the_other() -> None:
    cases = noisy_cases()
    grid = np.log((1 - THRESHOLDS) / THRESHOLDS)

    def dice(offsets: list[float]) -> float:
        factors = np.exp([0, *offsets])[:, None, None, None]
        rows = [dice_of((softmax_of(case, 3) * factors).argmax(axis=0), case.label, ALL.regions) for case in cases]
        return float(np.nanmean(np.nanmean(rows, axis=0)))

    offsets, without = [0.0, 0.0], dice([0.0, 0.0])
    for index in (0, 1, 0, 1):
        tried = [[*offsets[:index], offset, *offsets[index + 1 :]] for offset in grid]
        offsets = max(tried, key=dice)
    decision = choose_offsets(grey(ALL), lambda: iter(cases), batch_size=2)
    assert all(offsets) and decision.offsets == pytest.approx(offsets)
    assert (decision.dice, decision.argmax_dice) == pytest.approx((dice(offsets), without), abs=1e-9)
    assert decision.dice > decision.argmax_dice + 0.02
    chosen = replace(grey(ALL), offsets=decision.offsets)
    assert mean_dice(score_cases(chosen, cases, distances=False).volumes) == decision.dice


def test_of_equal_thresholds_the_one_nearest_to_a_half_is_taken() -> None:
    """0.5 is one of those that separate perfectly, then it lies above them."""
    label = np.zeros((2, 16, 16), np.uint8)
    label[:, 4:9, 3:9] = 2
    for bright, expected in ((750, 0.5), (193, 0.3)):
        # The probability of 6 * 0.75 - 2 is 0.924, of 6 * 0.193 - 2 is 0.301, of 6 * -0.5 - 2 is 0.007.
        image = np.where(label == 2, bright, -500).astype(np.int16)
        case = LabelledCase("1", image, label, None, WINDOW)
        decision = choose_offsets(grey(TUMOR), lambda case=case: [case])
        assert decision.offsets == pytest.approx([math.log((1 - expected) / expected)])
        assert decision.dice == 1 and decision.argmax_dice == (1 if expected == 0.5 else 0)


def test_without_anything_to_find_finding_nothing_is_best() -> None:
    """Of the thresholds above the probability everywhere, which is that of 6 * 0.6 - 2: 0.832."""
    shape = (1, 16, 16)
    case = LabelledCase("1", np.full(shape, 600, np.int16), np.ones(shape, np.uint8), None, WINDOW)
    decision = choose_offsets(grey(TUMOR), lambda: [case])
    assert decision.offsets == pytest.approx([math.log(0.15 / 0.85)]) and decision.argmax_dice == 0


def test_a_tie_of_two_classes_goes_to_the_first_as_in_a_prediction() -> None:
    """Two classes that are equal everywhere and above the background."""
    segmenter = grey(ALL)
    segmenter.network.load_state_dict({"slopes": torch.zeros(2), "biases": torch.ones(2)})
    image = np.zeros((1, 16, 16), np.int16)

    def decide(label: int) -> Decision:
        case = LabelledCase("1", image, np.full(image.shape, label, np.uint8), None, WINDOW)
        return choose_offsets(segmenter, lambda: [case])

    assert segmenter.decide(torch.tensor([0.2, 0.4, 0.4]).view(1, 3, 1, 1)).item() == 1
    assert decide(1) == Decision((0.0, 0.0), 1.0, 1.0)
    # Where all is tumour, the organ must step back; its region, which the tumour belongs to, is right anyway.
    all_tumour = decide(2)
    assert all_tumour.offsets == pytest.approx((math.log(0.45 / 0.55), 0.0))
    assert (all_tumour.dice, all_tumour.argmax_dice) == (1, 0.5)


def calibration_by_numpy(probability: NDArray[Any], truth: NDArray[Any]) -> float:
    edges, error = np.linspace(0, 1, 16), 0.0
    for low, high in pairwise(edges):
        inside = (probability > low) & (probability <= high) | (low == 0) & (probability == 0)
        if inside.any():
            error += inside.mean() * abs(probability[inside].mean() - truth[inside].mean())
    return error


def test_the_calibration_error_of_parts_is_that_of_the_whole() -> None:
    draws = np.random.default_rng(0)
    probability = draws.beta(0.3, 0.6, (6, 20, 20))
    probability[0, 0, :2] = 0, 1
    truth = draws.random(probability.shape) < probability**2
    error = CalibrationError()
    for part in (slice(0, 4), slice(4, 6)):
        error.add(torch.from_numpy(probability[part]), torch.from_numpy(truth[part]))
    assert error.value() == pytest.approx(calibration_by_numpy(probability, truth), abs=1e-12)
    assert error.value() > 0.05


def test_each_region_of_a_case_has_its_calibration_error() -> None:
    case = noisy_cases()[0]
    probabilities = softmax_of(case, 3)
    organ, tumor = score_case(grey(ALL), case, batch_size=2)
    assert organ["ece"] == pytest.approx(calibration_by_numpy(probabilities[1:].sum(axis=0), case.label > 0), abs=1e-6)
    assert tumor["ece"] == pytest.approx(calibration_by_numpy(probabilities[2], case.label == 2), abs=1e-6)
    assert score_case(grey(ALL), case, calibration=False)[0]["ece"] is None


@pytest.mark.parametrize("threshold", [None, 0.3])
def test_a_score_by_argmax_stands_next_to_the_decided_one(threshold: float | None) -> None:
    case, segmenter = noisy_cases()[0], replace(grey(ALL), offsets=(-0.5, 1.5))
    decided = score_case(segmenter, case, threshold=threshold)
    plain = score_case(grey(ALL), case)
    assert [row["argmax_dice"] for row in decided] == [row["dice"] for row in plain]
    assert [row["argmax_dice"] for row in plain] == [row["dice"] for row in plain]
    assert decided[0]["dice"] != decided[0]["argmax_dice"]
    assert [row["ece"] for row in decided] == [row["ece"] for row in plain]


def save(segmenter: Segmenter, path: Path, **other: Any) -> Path:
    content = {**segmenter.description(), "weights": segmenter.network.state_dict(), "config": {}}
    torch.save({**content, "cases": {"train": [], "val": []}, **other}, path)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A network whose decision is the threshold 0.2."""
    monkeypatch.setitem(NETWORKS, "grey", f"{__name__}:Grey")
    yield save(replace(grey(TUMOR), offsets=(math.log(4),)), tmp_path / "best.ckpt")


def test_a_checkpoint_keeps_the_offsets_and_an_older_one_has_none(checkpoint: Path) -> None:
    assert load_segmenter(checkpoint, CPU)[0].offsets == (math.log(4),)
    content = torch.load(checkpoint, weights_only=True)
    assert content.pop("offsets") == [math.log(4)]
    torch.save(content, checkpoint)
    older, _ = load_segmenter(checkpoint, CPU)
    assert older.offsets == () and older.describe_decision() == "the most probable class"


def test_evaluate_decides_as_chosen_unless_told_otherwise(checkpoint: Path, tmp_path: Path) -> None:
    slices = write_bare_archive(tmp_path / "slices", cases=2)

    def evaluate(*words: object) -> tuple[str, dict[str, Any], list[dict[str, str]]]:
        out = tmp_path / "scores.json"
        source = ("--ckpt", checkpoint, "--test_data_path", slices, "--outpath", out, "--device", "cpu")
        printed = output_of(in_process("scripts/evaluate.py", *source, *words))
        with out.with_suffix(".csv").open(newline="", encoding="utf-8") as file:
            return printed, read_json(out), list(csv.DictReader(file))

    printed, result, rows = evaluate()
    assert "decision: foreground where its probability exceeds 0.2\n" in printed and "argmax_dice" in printed
    assert result["offsets"] == [math.log(4)] and {"argmax_dice", "ece"} <= result["regions"]["tumor"].keys()
    argmax, plain, plain_rows = evaluate("--decision", "argmax")
    assert "decision: the most probable class\n" in argmax and plain["offsets"] == []
    assert [row["argmax_dice"] for row in rows] == [row["dice"] for row in plain_rows]
    assert [row["ece"] for row in rows] == [row["ece"] for row in plain_rows]
    assert result["regions"]["tumor"]["dice"]["mean"] != plain["regions"]["tumor"]["dice"]["mean"]
    _, same, _ = evaluate("--threshold", 0.2, "--decision", "argmax")
    assert same["regions"]["tumor"]["dice"] == result["regions"]["tumor"]["dice"]
    published, protocol, _ = evaluate("--slice_protocol")
    assert "decision" not in published and "offsets" not in protocol
    assert protocol["regions"] == evaluate("--slice_protocol", "--decision", "argmax")[1]["regions"]


def test_predict_decides_as_chosen_unless_told_otherwise(checkpoint: Path, tmp_path: Path) -> None:
    case = kits_case(tmp_path / "raw", 0)

    def voxels(out: str, *words: object) -> tuple[str, int]:
        source = ("--ckpt", checkpoint, "--inpath", case / "imaging.nii.gz", "--outpath", tmp_path / out)
        printed = output_of(in_process("scripts/predict.py", *source, "--device", "cpu", *words))
        decision, case_line = printed.splitlines()
        return decision, int(case_line.partition(": ")[2].split()[0])

    chosen, argmax, given = voxels("a"), voxels("b", "--decision", "argmax"), voxels("c", "--threshold", 0.9)
    assert chosen[0] == "decision: foreground where its probability exceeds 0.2"
    assert argmax[0] == "decision: the most probable class"
    assert given[0] == "decision: foreground where its probability exceeds 0.9"
    assert chosen[1] > argmax[1] > given[1] > 0


def test_the_grid_is_that_of_nineteen_thresholds() -> None:
    assert [1 / (1 + math.exp(offset)) for offset in GRID] == pytest.approx(THRESHOLDS.tolist())
