"""Scores of a teacher that is answers on disk, by the same protocols as a network's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.frame import Frame
from datasets.labelled_cases import cases_in_slices
from datasets.slices.answers import StoredAnswers
from datasets.slices.slice_folder import SliceFolder
from engine.evaluation.score import RegionScores, Scores, score_case, score_case_as_published
from engine.segmenter import Segmenter, batches
from networks.contract import SegmentationNetwork

WHOLE = Frame(0, 0)
"""Answers have the slices' own size."""


@dataclass
class Recorded(Segmenter):
    """Gives the answers to slices in the place of what a network would; `names`: of the slices it will be shown."""

    answers: StoredAnswers = field(kw_only=True)
    slices: SliceFolder = field(kw_only=True)
    names: Sequence[str] = field(kw_only=True)

    def framed_probabilities(
        self,
        image: NDArray[np.int16],
        window: tuple[float, float],
        batch_size: int = 8,
        parts: Iterable[slice] | None = None,
    ) -> Iterator[tuple[slice, Tensor]]:
        for part in batches(len(image), batch_size) if parts is None else parts:
            logs = [torch.from_numpy(self.answers.read(self.slices, name)).float() for name in self.names[part]]
            yield part, self.of_logits(torch.stack(logs))


def score_answers(
    answers: StoredAnswers, slices: SliceFolder, cases: Sequence[str], *, distances: bool
) -> list[RegionScores]:
    """The entries of these cases by both protocols, as `Scores.joined` gives them; each slice must have its answer."""
    network = SegmentationNetwork(answers.label_map.num_classes)
    scores = Scores([], [], {}, {})
    for case in cases_in_slices(slices, cases, slices.dataset_window):
        names = np.array(slices.upward(case.name))
        target = answers.label_map.target(case.label).any(axis=(1, 2))
        whole, picked = (
            Recorded(
                network, "", answers.dataset, answers.label_map, WHOLE, slices.dataset_window,
                answers=answers, slices=slices, names=chosen.tolist(),
            )
            for chosen in (names, names[target])
        )  # fmt: skip
        scores.volumes.extend(score_case(whole, case, distances=distances))
        scores.slice_protocol.extend(score_case_as_published(picked, case))
    return scores.joined()
