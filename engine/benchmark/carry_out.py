"""A benchmark from its options to its report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from datasets.slices.digests import CONTENTS, SCORED_CONTENTS
from datasets.slices.slice_folder import open_slices
from engine.benchmark.costs import lengths_of, measure, read_costs
from engine.benchmark.options import BenchmarkOptions
from engine.benchmark.prepare import prepare
from engine.benchmark.report import write_report
from engine.benchmark.runs import Fold, Run, is_complete, plan_runs
from engine.benchmark.teachers import score_teacher
from engine.benchmark.train_and_score import train_and_score_all
from engine.device import choose_device
from engine.options import DataOptions, TrainingOptions
from engine.provenance import write_run_file
from utils.errors import UserError


class Outcome(NamedTuple):
    """What a benchmark leaves; teachers: the content of teacher.json of each fold; failures: of runs."""

    folds: Sequence[Fold]
    runs: Sequence[Run]
    teachers: Sequence[Mapping[str, Any]]
    failures: Sequence[str]

    @property
    def any_finished(self) -> bool:
        return len(self.failures) < len(self.runs)

    def refuse_failures(self) -> None:
        """UserError if any run failed."""
        if self.failures:
            reasons = "; ".join(dict.fromkeys(self.failures))
            raise UserError(
                f"{len(self.failures)} of {len(self.runs)} runs failed and are not in the tables: {reasons}"
            )


def carry_out(options: BenchmarkOptions, data: DataOptions, training: TrainingOptions) -> Outcome:
    """Train and score what is not finished yet, and write the report of what is."""
    if options.report and not (options.outpath / "costs.json").exists():
        raise UserError(f"{options.outpath}: holds no benchmark yet; give the same command without --report first")
    folds, students, rows, against = prepare(options, data, training)
    costs = read_costs(folds[0]) if options.report else measure(folds[0], students, rows, options.longer_length)
    lengths = lengths_of(costs, students, options.longer_length)
    runs = plan_runs(folds, students, rows, sorted(set(options.seeds)), lengths)
    waiting = [each for each in runs if not is_complete(each, anywhere=options.report)]
    print(f"{len(runs)} runs, {len(runs) - len(waiting)} of them finished before: {options.outpath}", flush=True)
    started = time.monotonic()
    if not options.report:
        write_launch(folds, training)
    teachers = [score_teacher(fold) for fold in folds]
    failures = [] if options.report else train_and_score_all(waiting, options.jobs)
    outcome = Outcome(folds, runs, teachers, failures)
    if outcome.any_finished:
        write_report(folds, runs, costs, teachers, against)
    if not options.report:
        write_launch(folds, training, time.monotonic() - started)
    return outcome


def write_launch(folds: Sequence[Fold], training: TrainingOptions, seconds: float = 0.0) -> None:
    """Add this launch, or the seconds that it took, to run.json."""
    fold = folds[0]
    slices = open_slices(fold.data.train_data_path, fold.identity["dataset"], fold.identity["task"], "train")
    device = choose_device(training.device)
    write_run_file(fold.outpath, device, digests_of(folds), slices.label_map.classes, seconds)


def digests_of(folds: Sequence[Fold]) -> dict[str, str | None]:
    """Those of the slices, cases and teachers of all folds, each under the fold's label and its own name."""
    keys = ("slices", CONTENTS, "cases", SCORED_CONTENTS, "teacher")
    return {f"{fold.label}{key}": fold.identity.get(key) for fold in folds for key in keys}
