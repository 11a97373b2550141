"""Cases scored on a Dask cluster: each worker opens network and data once, and scores one case after another."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets.labelled_cases import refuse_unusable
from datasets.raw.options import ListOptions, ReadingOptions
from engine.evaluation.evaluate import named_cases, open_cases, scorer
from engine.evaluation.options import EvaluationOptions
from engine.evaluation.shards import ScoredCases, scored_case
from engine.options import PredictionOptions
from engine.provenance import describe_place
from engine.saved_segmenter import open_segmenter
from engine.segmenter import Segmenter
from utils.cluster import run_on_cluster
from utils.errors import UserError
from utils.progress import progress


def score_on_cluster(
    address: str,
    scored: ScoredCases,
    segmenter: Segmenter,
    options: EvaluationOptions,
    of_list: ListOptions,
    prediction: PredictionOptions,
    reading: ReadingOptions,
) -> None:
    """Score what is left of the cases that the options name; UserError that names those that failed twice."""
    names: list[str] = []

    def note_down(files: Mapping[str, Sequence[Path]]) -> list[str]:
        names.extend(scored.choose(files))
        return []  # to be read here

    for _ in open_cases(segmenter, options, of_list, reading)(named_cases(options), note_down):
        pass
    make = partial(Scorer, options, of_list, prediction, reading)
    results = run_on_cluster(address, make, names, lambda name: f"case {name}")
    errors = []
    for name, content in progress(results, "evaluating", total=len(names), unit="case"):
        if isinstance(content, UserError):
            errors.append(str(content))
        else:
            scored.add(name, content)
    refuse_unusable(options.place, errors, len(names))


class Scorer:
    """On a worker: scores cases by their names."""

    def __init__(
        self, options: EvaluationOptions, of_list: ListOptions, prediction: PredictionOptions, reading: ReadingOptions
    ) -> None:
        segmenter, _ = open_segmenter(prediction)
        self.where = describe_place(segmenter.device)
        self.read = open_cases(segmenter, options, of_list, reading)
        self.score = scorer(segmenter, options, prediction)

    def __call__(self, name: str) -> dict[str, Any]:
        """UserError if the case cannot be used."""
        began = time.monotonic()
        scores = self.score(self.read([name]))
        return scored_case(name, scores, time.monotonic() - began, self.where)
