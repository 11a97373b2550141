"""A benchmark from its options to its report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

from datasets.slices.digests import CONTENTS, SCORED_CONTENTS
from datasets.slices.slice_folder import open_slices
from engine.benchmark.costs import is_measured, lengths_of, measure, read_costs
from engine.benchmark.options import BenchmarkOptions
from engine.benchmark.prepare import prepare
from engine.benchmark.report import write_report
from engine.benchmark.runs import Fold, Run, is_complete, plan_runs
from engine.benchmark.teachers import in_turn, score_teacher
from engine.benchmark.train_and_score import train_and_score_all
from engine.device import choose_device
from engine.options import DataOptions, TrainingOptions
from engine.provenance import write_run_file
from utils.errors import UserError
from utils.lock import only_one
from utils.shards import Shard


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
    """Train and score what is not finished yet, and write the report of what is.

    A shard trains its share of the runs, and writes the report if those of all are finished then.
    """
    if options.report and not (options.outpath / "costs.json").exists():
        raise UserError(f"{options.outpath}: holds no benchmark yet; give the same command without --report first")
    shard = options.shard
    lock = only_one(options.outpath / f".{shard.label}.lock", f"is training shard {shard}") if shard else nullcontext()
    with lock:
        return _carry_out(options, data, training, shard)


def _carry_out(options: BenchmarkOptions, data: DataOptions, training: TrainingOptions, shard: Shard | None) -> Outcome:
    folds, students, rows, against = prepare(options, data, training)
    with in_turn(options.outpath, shard):
        costs = read_costs(folds[0])
        if not (options.report or (shard and is_measured(costs, students, rows))):
            costs = measure(folds[0], students, rows, options.longer_length)
    lengths = lengths_of(costs, students, options.longer_length)
    runs = plan_runs(folds, students, rows, sorted(set(options.seeds)), lengths)
    mine = shard.of(runs) if shard else runs
    waiting = [each for each in mine if not is_complete(each, anywhere=options.report)]
    of_shard = f" for shard {shard}" if shard else ""
    print(
        f"{len(mine)} runs{of_shard}, {len(mine) - len(waiting)} of them finished before: {options.outpath}", flush=True
    )
    started = time.monotonic()
    if not options.report:
        with in_turn(options.outpath, shard):
            write_launch(folds, training)
    with in_turn(options.outpath, shard, "teacher"):
        teachers = [score_teacher(fold) for fold in folds]
    failures = [] if options.report else train_and_score_all(waiting, options.jobs)
    outcome = Outcome(folds, mine, teachers, failures)
    with in_turn(options.outpath, shard):
        missing = [each for each in runs if not is_complete(each, anywhere=True)] if shard else []
        if missing:
            unfinished = f"{len(missing)} of all {len(runs)} runs are not finished"
            print(f"{unfinished}; the last shard, or --report, writes the tables")
        elif outcome.any_finished:
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
