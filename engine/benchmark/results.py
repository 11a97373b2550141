"""A benchmark's results: the scores of each row's runs, and whether one row is better than another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from engine.benchmark.rows import LONGER, UNDISTILLED
from engine.benchmark.statistics import Comparison, compare, holm
from engine.evaluation.summaries import case_means

LEAST_LEAD = 0.03
"""How far a teacher must be above the longest undistilled student, in Dice, for there to be something to distil."""

Training = tuple[int, int]
"""The fold, 0 where there are none, and the seed."""
Compared = Mapping[tuple[str, str], Comparison]
"""By student and row."""


@dataclass
class RowResults:
    """The finished runs of one row and one student, or the teachers'; results: content of result.json by training."""

    student: str
    name: str
    results: dict[Training, dict[str, Any]]

    def on(self, data: str) -> RowResults:
        """The same runs, scored on other data, as far as they were."""
        scored = {key: result for key, result in self.results.items() if data in result["also"]}
        return replace(self, results={key: {**result, "rows": result["also"][data]} for key, result in scored.items()})

    def scores(self, metric: str) -> pd.DataFrame:
        """Trainings x cases, NaN where undefined, not available or of another fold."""
        means = {training: case_means(result["rows"], metric) for training, result in self.results.items()}
        table = pd.DataFrame.from_dict(means, orient="index", dtype=float)
        table.index = pd.MultiIndex.from_tuples(means, names=["fold", "seed"])
        return table

    def seed_means(self, metric: str) -> pd.Series:
        """Of each seed: the mean over the cases of all its folds, where defined."""
        return self.scores(metric).groupby("seed").mean().mean(axis="columns")

    def case_means(self, metric: str) -> pd.Series:
        """Of each case: the mean over the trainings that scored it."""
        return self.scores(metric).mean()

    def groups(self, trainings: Sequence[Training]) -> dict[tuple[str, ...], list[Training]]:
        """Those of the trainings that were scored on the same cases, by these cases: one group for each fold."""
        grouped: dict[tuple[str, ...], list[Training]] = {}
        for training in trainings:
            grouped.setdefault(tuple(case_means(self.results[training]["rows"])), []).append(training)
        return grouped


def find_row(rows: Sequence[RowResults], name: str) -> RowResults | None:
    return next((row for row in rows if row.name == name), None)


def best_row(rows: Sequence[RowResults]) -> RowResults:
    """The one with the highest mean Dice."""
    return max(rows, key=lambda row: np.nan_to_num(row.seed_means("dice").mean(), nan=-1.0))


def longest_alone(rows: Sequence[RowResults]) -> RowResults | None:
    """The undistilled row that trained longest."""
    return find_row(rows, LONGER) or find_row(rows, UNDISTILLED)


def lead(teacher: RowResults, row: RowResults | None) -> float:
    """The mean over cases of the teacher's Dice over a row's; NaN without a row."""
    return float((teacher.case_means("dice") - row.case_means("dice")).mean()) if row else math.nan


def compare_rows(row: RowResults, base: RowResults) -> Comparison | None:
    """Over the trainings that both have; None if there are none."""
    trainings = sorted(row.results.keys() & base.results.keys())
    if not trainings:
        return None
    groups = row.groups(trainings)
    method, baseline = (
        [scores.loc[of_group, list(cases)].to_numpy() for cases, of_group in groups.items()]
        for scores in (row.scores("dice"), base.scores("dice"))
    )
    return compare(method, baseline)


def comparisons(results: Mapping[str, Sequence[RowResults]], against: str = UNDISTILLED) -> Compared:
    """Each student's rows compared with its row `against`; p after Holm's correction over all of them."""
    found = {}
    for student, rows in results.items():
        base = find_row(rows, against)
        for row in rows:
            if base and row is not base and (comparison := compare_rows(row, base)):
                found[student, row.name] = comparison
    corrected = holm([comparison.p for comparison in found.values()])
    return {key: replace(comparison, p=p) for (key, comparison), p in zip(found.items(), corrected, strict=True)}
