"""The decision of a trained network: offsets of its logits, chosen for the Dice of validation cases.

The threshold that maximises Dice is half the Dice that it reaches, so that calibrated probabilities which are decided
at 0.5 find too little. Z. C. Lipton, C. Elkan, B. Narayanaswamy: Optimal Thresholding of Classifiers to Maximize F1
Measure, ECML PKDD 2014, arXiv 1402.1892.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.labelled_cases import LabelledCase
from datasets.labels import LabelMap
from engine.evaluation.metrics import overlap_scores
from engine.evaluation.score import RegionScores
from engine.evaluation.summaries import mean_dice
from engine.segmenter import Segmenter

PERCENT = tuple(range(5, 100, 5))
GRID = tuple(math.log((100 - percent) / percent) for percent in PERCENT)
"""The offsets that are the thresholds 0.05, 0.10, ..., 0.95 where there are two classes."""
ROUNDS = 2

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Decision:
    """offsets: of each foreground class; dice, argmax_dice: the validation cases' `mean_dice` with and without them."""

    offsets: tuple[float, ...]
    dice: float
    argmax_dice: float


def choose_offsets(segmenter: Segmenter, cases: Callable[[], Iterable[LabelledCase]], batch_size: int = 8) -> Decision:
    """The offsets of `GRID` with the highest mean per-case Dice; of equal ones those nearest to 0, and then above it.

    One class after the other while the others are held, in two rounds where there are several. Each class of a round
    goes through `cases()` once and keeps only counts of voxels.
    """
    foreground = segmenter.label_map.num_classes - 1
    offsets = (0.0,) * foreground
    passes = []
    for index in [*range(foreground)] * (ROUNDS if foreground > 1 else 1):
        dice = _dice_on_grid(replace(segmenter, offsets=offsets), index + 1, cases(), batch_size)
        best = max(range(len(GRID)), key=lambda point: (dice[point], -abs(PERCENT[point] - 50)))
        offsets = (*offsets[:index], GRID[best], *offsets[index + 1 :])
        passes.append(dice)
    return Decision(offsets, float(passes[-1].max()), float(passes[0][GRID.index(0.0)]))


def _dice_on_grid(
    segmenter: Segmenter, index: int, cases: Iterable[LabelledCase], batch_size: int
) -> NDArray[np.float64]:
    """The cases' mean Dice for each offset of class `index`, with the segmenter's offsets of the others."""
    entries: list[list[RegionScores]] = [[] for _ in GRID]
    others = replace(segmenter, offsets=tuple(0.0 if i == index else o for i, o in enumerate(segmenter.offsets, 1)))
    for case in cases:
        reference = torch.from_numpy(segmenter.label_map.encode(case.label))
        table = np.zeros(_table_shape(segmenter.label_map.num_classes), np.int64)
        for part, probabilities in others.probabilities(case.image, case.window, batch_size):
            table += _count_wins(others.weighted(probabilities), reference[part], index)
        for point, confusion in enumerate(_confusions(table, index)):
            entries[point] += _region_dice(segmenter.label_map, case.name, confusion)
    # Undefined where there is nothing to find and nothing was found, which no Dice is above.
    return np.nan_to_num([mean_dice(rows) for rows in entries], nan=1.0)


def _table_shape(classes: int) -> tuple[int, int, int]:
    return len(GRID) + 1, classes, classes


def _count_wins(weighted: Tensor, truth: Tensor, index: int) -> Counts:
    """Voxels by how many points of the grid class `index` wins at, the best other class, and the true one.

    weighted: [n, C, H, W], as `Segmenter.weighted` gives it with the offset of `index` at 0; truth: [n, H, W]. Returns
    [points + 1, C, C].
    """
    classes = weighted.shape[1]
    own, others = weighted[:, index], weighted.clone()
    others[:, index] = -1
    rival, other = others.max(dim=1)
    # Of equal ones the first class wins: then `own` need only reach its rival.
    rival = torch.where(other > index, rival.nextafter(rival.new_tensor(-1.0)), rival)
    wins = torch.zeros_like(other)
    for offset in GRID:
        wins += own * math.exp(offset) > rival
    cells = (wins * classes + other) * classes + truth.to(other)
    shape = _table_shape(classes)
    return torch.bincount(cells.flatten(), minlength=math.prod(shape)).reshape(shape).cpu().numpy()


def _confusions(table: Counts, index: int) -> Counts:
    """Voxels by point of the grid, decided and true class, [points, C, C], of what `_count_wins` gives."""
    # Offsets fall along the grid, so a voxel with n wins has class `index` at the first n points.
    lost = table.cumsum(axis=0)[:-1]
    won = table.sum(axis=0) - lost
    lost[:, index] += won.sum(axis=1)
    return lost


def _region_dice(label_map: LabelMap, case: str, confusion: Counts) -> list[RegionScores]:
    entries = []
    for region, classes in label_map.regions.items():
        decided, true = confusion[list(classes)], confusion[:, list(classes)]
        scores = overlap_scores(int(decided.sum()), int(true.sum()), int(decided[:, list(classes)].sum()))
        entries.append({"case": case, "region": region, "dice": scores["dice"]})
    return entries
