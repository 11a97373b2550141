"""Scores and pictures of the validation cases while a network trains."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from datasets.labelled_cases import LabelledCase, cases_in_slices
from datasets.slices.slice_folder import SliceFolder
from engine.contours import PREDICTION_COLOUR, TRUTH_COLOUR, draw_contours, grey_picture, montage
from engine.device import Precision
from engine.evaluation.metrics import OVERLAP
from engine.evaluation.score import RegionScores, score_cases
from engine.evaluation.summaries import mean_dice, summarise
from engine.segmenter import Segmenter
from utils.across import gather_text, rank, ranks
from utils.progress import progress

PICTURES = 4  # cases in the picture for TensorBoard


class ValidationScores(NamedTuple):
    """dice: the mean per-case Dice, which picks best.ckpt; metrics: "<region>/<metric>" -> mean over cases.

    found: whether any voxel is foreground in the predictions.
    """

    dice: float
    metrics: dict[str, float]
    found: bool = True


@dataclass(frozen=True)
class Validation:
    """Scores every slice of `cases` of a folder of slices with the network in training.

    Where several processes train together, each scores a share of the cases, and all get the scores of all.
    """

    segmenter: Segmenter
    slices: SliceFolder
    cases: Sequence[str]
    batch_size: int
    precision: Precision

    def __call__(self) -> ValidationScores:
        cases = self.labelled_cases("validating", self.cases[rank() :: ranks()])
        with self.precision.autocast():
            # Overlap is all that picks a checkpoint; distances take many times longer, calibration a tenth.
            rows = score_cases(
                self.segmenter, cases, batch_size=self.batch_size, distances=False, calibration=False
            ).volumes
        rows = self._of_all(rows)
        metrics = {
            f"{region}/{metric}": summary["mean"]
            for region, metrics in summarise(rows, (*OVERLAP, "crop_lost")).items()
            for metric, summary in metrics.items()
            if summary["mean"] is not None
        }
        return ValidationScores(mean_dice(rows), metrics, any(row["predicted_voxels"] for row in rows))

    def _of_all(self, own: list[RegionScores]) -> list[RegionScores]:
        """The scores of all processes, in the order of the cases."""
        shares = [json.loads(share) for share in gather_text(json.dumps(own))] if ranks() > 1 else [own]
        of_case: dict[str, list[RegionScores]] = {}
        for entry in chain.from_iterable(shares):
            of_case.setdefault(entry["case"], []).append(entry)
        return [entry for case in self.cases for entry in of_case[case]]

    def labelled_cases(self, text: str, names: Sequence[str] | None = None) -> tqdm[LabelledCase]:
        """The cases one at a time, or those of these names, with a progress bar of this text."""
        names = self.cases if names is None else names
        cases = cases_in_slices(self.slices, names, self.segmenter.window)
        return progress(cases, text, total=len(names), unit="case")

    def picture(self) -> Tensor:
        """[3, H, W] in 0..1: of the first cases the largest target slice, and again with truth and prediction drawn."""
        pictures = []
        for image, truth, window in self._largest_slices:
            plain = grey_picture(image[len(image) // 2], window)
            predicted = self.segmenter.segment(image, window)[len(image) // 2]
            drawn = draw_contours(draw_contours(plain, truth, TRUTH_COLOUR), predicted, PREDICTION_COLOUR)
            pictures += [plain, drawn]
        return torch.from_numpy(montage(pictures, columns=2)).permute(2, 0, 1) / 255

    @cached_property
    def _largest_slices(self) -> list[tuple[NDArray[np.int16], NDArray[np.uint8], tuple[float, float]]]:
        """Of each case: the image [1, H, W], its class indices [H, W], and its window.

        For a volumetric network an odd number of slices, with that one in the middle.
        """
        chosen = []
        for case in cases_in_slices(self.slices, self.cases[:PICTURES], self.segmenter.window):
            truth = self.segmenter.label_map.encode(case.label)
            index = int((truth > 0).sum(axis=(1, 2)).argmax())
            reach = self.segmenter.network.block // 2
            around = np.arange(index - reach, index + reach + 1).clip(0, len(truth) - 1)
            chosen.append((case.image[around], truth[index].copy(), case.window))
        return chosen
