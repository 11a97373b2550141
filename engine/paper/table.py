"""The experiment's table: each row by the published protocol, and by ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from datasets.splits import Split
from engine.benchmark.carry_out import Outcome
from engine.benchmark.report import read_results, read_teachers
from engine.benchmark.results import RowResults
from engine.evaluation.evaluate import write_csv
from engine.reporting import COLUMNS as VOLUME_COLUMNS
from engine.reporting import format_mean_std, format_table, markdown_table
from utils.files import write_text

COLUMNS = {
    "slice protocol Dice": ("slice_dice", ".3f"),
    'slice protocol "VOE"': ("slice_published_voe", ".3f"),
    "slice protocol RVD": ("slice_rvd", "+.3f"),
    **VOLUME_COLUMNS,
}
LEGEND = (
    "Scores are means over test cases, then mean ± standard deviation over seeds; (n/m) is defined for n of m. "
    "The slice protocol is the published one: slices that contain the target, inside the crop, foreground where its "
    'probability exceeds 0.4, and a "VOE" that counts false positives only, so that an empty prediction scores a '
    "perfect 0. The other columns are of whole volumes, decided as the validation cases chose; Dice by argmax is "
    "without that choice."
)


def write_table(outpath: Path, outcome: Outcome, published_names: Mapping[str, str], notice: str) -> None:
    """Write paper.md and paper.csv from the finished runs, and print the table.

    published_names: of rows, where the published code has one. notice: what differs from the paper.
    """
    (fold,) = outcome.folds
    teacher = read_teachers(outcome.folds, outcome.teachers, fold.identity["model"])
    rows = [teacher, *(row for of_student in read_results(outcome.runs).values() for row in of_student)]
    table = pd.DataFrame([table_line(row, published_names) for row in rows])
    write_csv(outpath / "paper.csv", [csv_line(row, published_names) for row in rows])
    title = f"# The paper's experiment: {fold.identity['dataset']}, {fold.identity['task']}"
    write_text(outpath / "paper.md", "\n\n".join([title, notice, markdown_table(table), LEGEND]) + "\n")
    print(f"\n{format_table(table)}\n\n{notice}\n\n{LEGEND}\n{outpath / 'paper.md'}")


def row_title(row: RowResults) -> str:
    return f"teacher, {row.student}" if row.name == "teacher" else f"{row.student} {row.name}"


def table_line(row: RowResults, published_names: Mapping[str, str]) -> dict[str, str]:
    """The cells of a row, as they are shown."""
    scores = {title: score_cell(row, metric, form) for title, (metric, form) in COLUMNS.items()}
    name = published_names.get(row.name, "")
    return {"training": row_title(row), "published as": name, **scores, "runs": str(len(row.results))}


def score_cell(row: RowResults, metric: str, form: str) -> str:
    """Mean ± standard deviation over seeds; how often it is defined, where that is less often than Dice."""
    means = row.seed_means(metric)
    text = format_mean_std(means.mean(), means.std(), form)
    defined, scored = (int(row.scores(name).count().sum()) for name in (metric, "dice"))
    return text if defined == 0 or defined >= scored else f"{text} ({defined}/{scored})"


def csv_line(row: RowResults, published_names: Mapping[str, str]) -> dict[str, Any]:
    """The same as numbers."""
    line = {"training": row_title(row), "published_as": published_names.get(row.name, ""), "runs": len(row.results)}
    for metric, _ in COLUMNS.values():
        means = row.seed_means(metric)
        line |= {f"{metric}_mean": float(means.mean()), f"{metric}_std": float(means.std())}
    return line


def describe_differences(
    split: Split, seeds: Sequence[int], chosen: Mapping[str, Any], published: Mapping[str, Any]
) -> str:
    """What differs from the paper, in one notice; chosen, published: settings by flag."""
    other = [
        f"--{flag} {chosen[flag]} (published: {value})" for flag, value in published.items() if chosen[flag] != value
    ]
    parts = [
        f"the division of the cases: {len(split.train)} train, {len(split.val)} pick each checkpoint and its decision, "
        f"{len(split.test)} test and choose nothing, where the published code tests on the cases that it validates on",
        f"students of {len(seeds)} seed(s) ({', '.join(map(str, seeds))}) and one teacher",
        "a learning rate that falls with every step, not every epoch",
        "losses without the published errors, which only a row hlfd_published has",
        *other,
    ]
    return f"What differs from the paper (docs/published.md): {'; '.join(parts)}."
