"""A benchmark's report: which row to use, whether its gain is real, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import pandas as pd

from engine.benchmark import tables
from engine.benchmark.agreement import agreement_charts
from engine.benchmark.elsewhere import scores_elsewhere
from engine.benchmark.figure import cost_figure
from engine.benchmark.results import RowResults, comparisons, find_row
from engine.benchmark.rows import LONGER, UNDISTILLED
from engine.benchmark.runs import Fold, Run, is_finished
from engine.benchmark.sentences import describe_attention, describe_cases, verdict
from engine.benchmark.statistics import RESAMPLES
from engine.evaluation.evaluate import write_csv
from engine.reporting import figure_png, format_table, markdown_table, markdown_text, render
from utils.errors import UserError
from utils.files import read_json, write_text

Block: TypeAlias = str | pd.DataFrame
"""A paragraph or a table."""
Results = Mapping[str, Sequence[RowResults]]
"""Student -> its rows, in the order of the table."""


def write_report(
    folds: Sequence[Fold],
    runs: Sequence[Run],
    costs: Mapping[str, Any],
    scored_teachers: Sequence[Mapping[str, Any]],
    against: str = UNDISTILLED,
) -> None:
    """Write results.csv, cases.csv, results.md and index.html from the finished runs, and print the tables.

    scored_teachers: what `score_teacher` gave for each fold; against: the row that the others' gains are over.
    """
    fold, results = folds[0], read_results(runs)
    out = fold.outpath
    begun = {number for rows in results.values() for row in rows for number, _ in row.results}
    pairs = [pair for pair in zip(folds, scored_teachers, strict=True) if (pair[0].number or 0) in begun]
    folds, scored_teachers = [fold for fold, _ in pairs], [scored for _, scored in pairs]
    teacher = read_teachers(folds, scored_teachers, costs["teacher"])
    every_row = [row for rows in results.values() for row in rows]
    run_lines = tables.run_lines(every_row, costs)
    write_csv(out / "results.csv", run_lines)
    write_csv(out / "cases.csv", tables.case_lines([teacher, *every_row]))

    title = f"Distilling {teacher.student} for {fold.identity['dataset']} {fold.identity['task']}"
    notice = " ".join([describe_cases(folds, scored_teachers), *describe_attention(fold, runs, costs)])
    others = [data.name for data in fold.also_test]
    at_home = score_blocks(results, teacher, against)
    away = {data: score_blocks(*elsewhere(results, teacher, data), against) for data in others}
    sections: dict[str, list[Block]] = {}
    for student, rows in results.items():
        sections[student] = [*at_home[student], tables.cost_table(rows, costs["steps"].get(student, {}))]
        for data, of_students in away.items():
            if student in of_students:
                sections[f"{student}, on {data}"] = of_students[student]
    sections["Networks"] = [tables.network_table(results, teacher, costs)]
    for heading, parts in sections.items():
        print("\n\n".join([f"\n{heading}", *as_texts(parts, format_table)]))

    columns = {name for parts in sections.values() for part in parts if not isinstance(part, str) for name in part}
    sections["Networks"] += notes(results, costs, columns, against)
    blocks = [f"# {markdown_text(title)}", markdown_text(notice)]
    for heading, parts in sections.items():
        blocks += [f"## {markdown_text(heading)}", *as_texts(parts, markdown_table, markdown_text)]
    teacher_dice = float(teacher.case_means("dice").mean())
    figure = figure_png(cost_figure(pd.DataFrame(run_lines), teacher.student, teacher_dice))
    write_text(out / "results.md", "\n\n".join(blocks) + "\n")
    charts = {student: agreement_charts([teacher, *rows]) for student, rows in results.items()}
    page = render("benchmark.html.j2", title=title, notice=notice, figure=figure, sections=sections, charts=charts)
    write_text(out / "index.html", page)
    print(f"\n{notice}\nThe columns are explained in {out / 'results.md'} and {out / 'index.html'}")


def as_texts(
    parts: Sequence[Block], table: Callable[[pd.DataFrame], str], paragraph: Callable[[str], str] = str
) -> list[str]:
    return [paragraph(part) if isinstance(part, str) else table(part) for part in parts]


def read_results(runs: Sequence[Run]) -> dict[str, list[RowResults]]:
    """Student -> its rows that have finished runs, in the order of `runs`; UserError if no run is finished."""
    table: dict[str, dict[str, RowResults]] = {}
    for run in runs:
        row = table.setdefault(run.student, {}).setdefault(run.row.name, RowResults(run.student, run.row.name, {}))
        if is_finished(run, anywhere=True):
            also = scores_elsewhere(run.folder, run.fold.also_test)
            row.results[run.fold.number or 0, run.seed] = {**read_json(run.folder / "result.json"), "also": also}
    finished = {student: [row for row in rows.values() if row.results] for student, rows in table.items()}
    if not any(finished.values()):
        raise UserError(f"{runs[0].fold.outpath}: no run is finished yet, so there is nothing to report")
    return {student: rows for student, rows in finished.items() if rows}


def read_teachers(folds: Sequence[Fold], scored: Sequence[Mapping[str, Any]], model: str) -> RowResults:
    """The teachers of all folds as one row; scored: what `score_teacher` gave for each."""
    by_fold = {(fold.number or 0, 0): dict(of_fold) for fold, of_fold in zip(folds, scored, strict=True)}
    return RowResults(model, "teacher", by_fold)


def elsewhere(results: Results, teacher: RowResults, data: str) -> tuple[Results, RowResults]:
    """The same rows, scored on other data, as far as they were."""
    moved = {student: [row.on(data) for row in rows] for student, rows in results.items()}
    scored = {student: [row for row in rows if row.results] for student, rows in moved.items()}
    return {student: rows for student, rows in scored.items() if rows}, teacher.on(data)


def score_blocks(results: Results, teacher: RowResults, against: str) -> dict[str, list[Block]]:
    """Student -> a sentence or two, and its table."""
    compared = comparisons(results, against)
    return {
        student: [verdict(rows, teacher, compared, against), tables.score_table(rows, teacher, compared, against)]
        for student, rows in results.items()
    }


def notes(results: Results, costs: Mapping[str, Any], columns: Collection[str], against: str) -> list[str]:
    """What the columns mean, those that are there: a paragraph on scores, one on costs."""
    students = [student for student, rows in results.items() if find_row(rows, LONGER)]
    multiples = {student: costs["lengths"][student][LONGER] for student in students}
    slower = [
        f"{student} {name} {step['ratio']:.2f}"
        for student, multiple in multiples.items()
        for name, step in costs["steps"].get(student, {}).items()
        if name != UNDISTILLED and find_row(results[student], name) and step["ratio"] > multiple
    ]
    # Networks may have been measured by different launches.
    measured = [costs["networks"][name] for name in (costs["teacher"], *results) if name in costs["networks"]]
    text = render(
        "benchmark_notes.txt.j2",
        columns=columns,
        against=against,
        longer=LONGER,
        resamples=RESAMPLES,
        multiples=", ".join(f"{student} {multiple:g}" for student, multiple in multiples.items()),
        slower=", ".join(slower),
        processors=" or ".join(sorted({f"{cost['threads']} thread(s), {cost['cpu']}" for cost in measured})),
    )
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
