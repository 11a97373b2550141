"""A benchmark's report: which row to use, whether its gain is real, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import pandas as pd

from engine.benchmark import tables
from engine.benchmark.figure import cost_figure
from engine.benchmark.runs import LONGER, UNDISTILLED, Benchmark, Run, is_finished
from engine.benchmark.statistics import RESAMPLES, least_p
from engine.benchmark.tables import RowResults
from engine.evaluation.evaluate import write_csv
from engine.reporting import figure_png, format_table, markdown_table, render
from utils.errors import UserError
from utils.files import read_json, write_text

Block: TypeAlias = str | pd.DataFrame
"""A paragraph or a table."""
Results = Mapping[str, Sequence[RowResults]]
"""Student -> its rows, in the order of the table."""


def write_report(
    benchmark: Benchmark,
    runs: Sequence[Run],
    costs: Mapping[str, Any],
    scored_teacher: Mapping[str, Any],
    against: str = UNDISTILLED,
) -> None:
    """Write results.csv, cases.csv, results.md and index.html from the finished runs, and print the tables.

    against: the row that the others' gains are over.
    """
    out, results = benchmark.outpath, read_results(benchmark, runs)
    teacher = RowResults(costs["teacher"], "teacher", {None: dict(scored_teacher)})
    every_row = [row for rows in results.values() for row in rows]
    run_lines = tables.run_lines(every_row, costs)
    write_csv(out / "results.csv", run_lines)
    write_csv(out / "cases.csv", tables.case_lines([teacher, *every_row]))

    title = f"Distilling {teacher.student} for {benchmark.identity['dataset']} {benchmark.identity['task']}"
    notice = describe_cases(scored_teacher, teacher.scores("dice").shape[1], benchmark.validation_only)
    sections: dict[str, list[Block]] = {
        student: [
            verdict(rows, against),
            tables.score_table(rows, teacher, against),
            tables.cost_table(rows, costs["steps"].get(student, {})),
        ]
        for student, rows in results.items()
    }
    sections["Networks"] = [tables.network_table(results, teacher, costs)]
    for heading, parts in sections.items():
        print("\n\n".join([f"\n{heading}", *as_texts(parts, format_table)]))

    columns = {name for parts in sections.values() for part in parts if not isinstance(part, str) for name in part}
    sections["Networks"] += notes(results, costs, columns, against)
    blocks = [f"# {title}", notice]
    for heading, parts in sections.items():
        blocks += [f"## {heading}", *as_texts(parts, markdown_table)]
    teacher_dice = float(teacher.seed_means("dice").iloc[0])
    figure = figure_png(cost_figure(pd.DataFrame(run_lines), teacher.student, teacher_dice))
    write_text(out / "results.md", "\n\n".join(blocks) + "\n")
    write_text(
        out / "index.html", render("benchmark.html.j2", title=title, notice=notice, figure=figure, sections=sections)
    )
    print(f"\n{notice}\nThe columns are explained in {out / 'results.md'} and {out / 'index.html'}")


def as_texts(parts: Sequence[Block], table: Callable[[pd.DataFrame], str]) -> list[str]:
    return [part if isinstance(part, str) else table(part) for part in parts]


def read_results(benchmark: Benchmark, runs: Sequence[Run]) -> dict[str, list[RowResults]]:
    """Student -> its rows that have finished runs, in the order of `runs`; UserError if no run is finished."""
    table: dict[str, dict[str, RowResults]] = {}
    for run in runs:
        row = table.setdefault(run.student, {}).setdefault(run.row.name, RowResults(run.student, run.row.name, {}))
        if is_finished(benchmark, run, anywhere=True):
            row.results[run.seed] = read_json(run.folder / "result.json")
    finished = {student: [row for row in rows.values() if row.results] for student, rows in table.items()}
    if not any(finished.values()):
        raise UserError(f"{benchmark.outpath}: no run is finished yet, so there is nothing to report")
    return {student: rows for student, rows in finished.items() if rows}


def describe_cases(teacher: Mapping[str, Any], cases: int, validation_only: bool) -> str:
    """Which cases the scores are of, and what limits them; teacher: the content of teacher.json."""
    if validation_only:
        notice = f"Scores of {cases} VALIDATION cases, which picked each checkpoint: to choose recipes, not to report."
    else:
        notice = f"Scores of {cases} test cases, which trained and chose no student."
        if seen := teacher["seen_in_training"]:
            notice += f" {len(seen)} of them trained or chose the TEACHER: its row and the gap closed are too good."
    if incomplete := len(teacher["incomplete"]):
        lack = "lacks slices, so it is not a whole volume" if incomplete == 1 else "lack slices, so they are not whole"
        notice += f" {incomplete} of them {lack}."
    return notice


def verdict(rows: Sequence[RowResults], against: str = UNDISTILLED) -> str:
    """Which row to use, in a sentence or two."""
    compared = tables.comparisons(rows, against)
    methods = [row for row in rows if row.name in compared and row.name not in (UNDISTILLED, LONGER)]
    base = "the undistilled student" if against == UNDISTILLED else against
    if not methods:
        return f"No method is finished yet that could be compared with {base}."
    best = tables.best_row(methods)
    comparison = compared[best.name]
    conclusion = "not distinguishable from chance"
    if comparison.p < 0.05 and (comparison.low > 0 or comparison.high < 0):
        conclusion = "a gain" if comparison.gain > 0 else "a loss"
    text = (
        f"Highest Dice of the methods: {best.name}, {tables.format_gain(comparison.gain)} over {base} (95 % interval "
        f"{tables.format_interval(comparison)}, p {tables.format_p(comparison.p)} after Holm): {conclusion}."
    )
    if (least := least_p(comparison.cases, len(compared))) >= 0.05:
        text += f" With {comparison.cases} cases no p in this table can be below {tables.format_p(least)}."
    longer = tables.find_row(rows, LONGER)
    if longer is not None and against != LONGER and (over_longer := tables.compare_rows(best, longer)):
        gain, interval = tables.format_gain(over_longer.gain), tables.format_interval(over_longer)
        text += f" Over the student trained alone for longer: {gain} (95 % interval {interval})."
    return text


def notes(results: Results, costs: Mapping[str, Any], columns: Collection[str], against: str) -> list[str]:
    """What the columns mean, those that are there: a paragraph on scores, one on costs."""
    students = [student for student, rows in results.items() if tables.find_row(rows, LONGER)]
    multiples = {student: costs["longer"][student] for student in students}
    slower = [
        f"{student} {name} {step['ratio']:.2f}"
        for student, multiple in multiples.items()
        for name, step in costs["steps"].get(student, {}).items()
        if name != UNDISTILLED and tables.find_row(results[student], name) and step["ratio"] > multiple
    ]
    # Networks may have been measured by different launches.
    measured = [costs["networks"][name] for name in (costs["teacher"], *results)]
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
