"""What a benchmark's report says in words: of which cases, whether there is anything to distil, which row to use."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from engine.benchmark.results import (
    LEAST_LEAD,
    Compared,
    RowResults,
    best_row,
    compare_rows,
    find_row,
    lead,
    longest_alone,
)
from engine.benchmark.rows import LONGER, UNDISTILLED, channels_of
from engine.benchmark.runs import Fold, Run
from engine.benchmark.statistics import least_p
from engine.benchmark.tables import format_gain, format_interval, format_p
from engine.evaluation.summaries import case_means

OF_HLFD = ("hlfd", "hifd", "ifd", "deep", "skd", "at", "hlfd_published")
PAPERS_E5 = 12  # pixels along a side, of 384 at stride 32


def describe_cases(folds: Sequence[Fold], teachers: Sequence[Mapping[str, Any]]) -> str:
    """Which cases the scores are of, and what limits them; teachers: the content of teacher.json of each fold."""
    cases = sum(len(case_means(teacher["rows"])) for teacher in teachers)
    numbers = [str(fold.number) for fold in folds if fold.number is not None]
    in_folds = f" of fold{'s' * (len(numbers) > 1)} {', '.join(numbers)}" if numbers else ""
    if folds[0].validation_only:
        notice = (
            f"Scores of {cases} VALIDATION cases{in_folds}, which picked each checkpoint: to choose, not to report."
        )
    else:
        notice = f"Scores of {cases} test cases{in_folds}, which trained and chose no student."
        if seen := sum(len(teacher["seen_in_training"]) for teacher in teachers):
            notice += f" {seen} of them trained or chose the TEACHER: its row and the gap closed are too good."
    if incomplete := sum(len(teacher["incomplete"]) for teacher in teachers):
        lack = "lacks slices, so it is not a whole volume" if incomplete == 1 else "lack slices, so they are not whole"
        notice += f" {incomplete} of them {lack}."
    return notice


def describe_attention(fold: Fold, runs: Sequence[Run], costs: Mapping[str, Any]) -> list[str]:
    """How many pixels HLFD's attention is compared on; nothing where no row is of its family."""
    if not any(method.name in OF_HLFD for run in runs for method in run.row.methods):
        return []
    model = fold.identity["model"]
    deepest = channels_of(fold.teacher_network, fold.identity["classes"]).stage("e5")
    side = -(-costs["networks"][model]["gmacs_at"] // deepest.stride)
    text = f"The teacher's e5, which HLFD's attention is compared on, has {side} x {side} pixels"
    if side < PAPERS_E5:
        return [f"{text}, the paper's {PAPERS_E5} x {PAPERS_E5}: the rows of HLFD don't speak for the paper."]
    return [f"{text}."]


def verdict(rows: Sequence[RowResults], teacher: RowResults, compared: Compared, against: str = UNDISTILLED) -> str:
    """Whether there is anything to distil, and which row to use, in a sentence or two."""
    student = rows[0].student
    gap = lead(teacher, longest_alone(rows))
    text = (
        ""
        if math.isnan(gap)
        else f"The teacher is {abs(gap):.3f} {'below' if gap < 0 else 'above'} the longest undistilled student"
    )
    nothing_to_distil = gap < LEAST_LEAD
    text += f": there is nothing to distil ({LEAST_LEAD} would do). " if nothing_to_distil else ". " if text else ""
    methods = [row for row in rows if (student, row.name) in compared and row.name not in (UNDISTILLED, LONGER)]
    base = "the undistilled student" if against == UNDISTILLED else against
    if not methods:
        return f"{text}No method is finished yet that could be compared with {base}."
    best = best_row(methods)
    comparison = compared[student, best.name]
    conclusion = "not distinguishable from chance"
    if nothing_to_distil:
        conclusion = "no comparison"
    elif comparison.p < 0.05 and (comparison.low > 0 or comparison.high < 0):
        conclusion = "a gain" if comparison.gain > 0 else "a loss"
    text += (
        f"Highest Dice of the methods: {best.name}, {format_gain(comparison.gain)} over {base} (95 % interval "
        f"{format_interval(comparison)}, p {format_p(comparison.p)} after Holm): {conclusion}."
    )
    if (least := least_p(comparison.cases, len(compared))) >= 0.05:
        text += f" With {comparison.cases} cases no p in this table can be below {format_p(least)}."
    longer = find_row(rows, LONGER)
    if longer is not None and against != LONGER and (over_longer := compare_rows(best, longer)):
        gain, interval = format_gain(over_longer.gain), format_interval(over_longer)
        text += f" Over the student trained alone for longer: {gain} (95 % interval {interval})."
    return text
