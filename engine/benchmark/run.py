"""A benchmark from its options to its tables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from engine.benchmark.costs import measure, read_costs
from engine.benchmark.options import BenchmarkOptions
from engine.benchmark.prepare import prepare
from engine.benchmark.report import read_results, read_teachers, write_report
from engine.benchmark.results import RowResults
from engine.benchmark.rows import LONGER
from engine.benchmark.runs import is_complete, plan_runs
from engine.benchmark.teachers import score_teacher
from engine.benchmark.train_and_score import train_and_score_all
from engine.options import DataOptions, TrainingOptions
from utils.errors import UserError


class Finished(NamedTuple):
    """results: student -> its rows; teacher: of all folds."""

    results: Mapping[str, Sequence[RowResults]]
    teacher: RowResults


def run_benchmark(options: BenchmarkOptions, data: DataOptions, training: TrainingOptions) -> Finished:
    """Train and score what is not there yet, write the report, and give what it is of; UserError if a run failed."""
    # A line is printed when a run ends; progress bars of several at the same time would only mix.
    os.environ["TQDM_DISABLE"] = "1"
    if options.report and not (options.outpath / "costs.json").exists():
        raise UserError(f"{options.outpath}: holds no benchmark yet; give the same command without --report first")
    folds, students, rows, against = prepare(options, data, training)
    costs = read_costs(folds[0]) if options.report else measure(folds[0], students, rows, options.longer_length)
    lengths = {student: dict(costs["lengths"].get(student, {})) for student in students}
    if options.longer == 0:
        for of_student in lengths.values():
            of_student.pop(LONGER, None)
    runs = plan_runs(folds, students, rows, sorted(set(options.seeds)), lengths)
    waiting = [each for each in runs if not is_complete(each, anywhere=options.report)]
    print(f"{len(runs)} runs, {len(runs) - len(waiting)} of them finished before: {options.outpath}", flush=True)

    scored = [score_teacher(fold) for fold in folds]
    failures = [] if options.report else train_and_score_all(waiting, options.jobs)
    if len(failures) < len(runs):
        write_report(folds, runs, costs, scored, against)
    if failures:
        reasons = "; ".join(dict.fromkeys(failures))
        raise UserError(f"{len(failures)} of {len(runs)} runs failed and are not in the tables: {reasons}")
    return Finished(read_results(runs), read_teachers(folds, scored, costs["teacher"]))
