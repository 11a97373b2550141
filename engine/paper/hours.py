"""How long the experiment will take on this device, from steps that are timed before any training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pandas as pd

from datasets.labelled_cases import cases_in_slices
from datasets.slices.slice_folder import SliceFolder, open_slices
from engine.benchmark.costs import SLICES, lengths_of, measure, measure_steps
from engine.benchmark.options import BenchmarkOptions
from engine.benchmark.prepare import plan
from engine.benchmark.rows import UNDISTILLED, Row
from engine.benchmark.runs import Fold, Run, is_trained, plan_runs, run_options
from engine.benchmark.teachers import teacher_folder
from engine.cost import segmentation_speed
from engine.device import choose_device
from engine.options import DataOptions, RunOptions, TrainingOptions
from engine.segmenter import Segmenter
from engine.training.run import new_segmenter
from engine.training.schedule import Schedule
from utils.checkpoint import save_checkpoint
from utils.errors import UserError


class Expected(NamedTuple):
    """The trainings of one name: how many are left, and the steps, the ms a step and the other seconds of each."""

    name: str
    left: int
    steps: int
    ms: float
    evaluation_s: float

    @property
    def hours(self) -> float:
        """Of those that are left."""
        return self.left * (self.steps * self.ms / 1000 + self.evaluation_s) / 3600


def expect(options: BenchmarkOptions, data: DataOptions, training: TrainingOptions) -> list[Expected]:
    """The teacher's training and each row's, timed on the device; what costs.json has is not timed again.

    UserError if a step fails, for its training would.
    """
    planned = plan(options, data, training)
    (fold,) = planned.folds
    model, seed = fold.identity["model"], min(fold.steps_per_epoch)
    schedule = Schedule.from_options(training, fold.steps_per_epoch[seed])
    with any_teacher(fold) as ready:
        costs = measure(ready, planned.students, planned.rows, options.longer_length)
        of_teacher = measure_steps(ready, model, (), costs)
    seconds = {name: evaluation_seconds(fold, name, schedule) for name in (model, *planned.students)}
    left = int(not is_trained(teacher_folder(fold)))
    steps = options.teacher_steps or schedule.steps
    expected = [Expected(f"teacher, {model}", left, steps, step_ms(fold, of_teacher, Row(UNDISTILLED)), seconds[model])]
    lengths = lengths_of(costs, planned.students, options.longer_length)
    runs = plan_runs(planned.folds, planned.students, planned.rows, sorted(set(options.seeds)), lengths)
    for of_row in by_row(runs):
        first = of_row[0]
        left = sum(not is_trained(run.folder) for run in of_row)
        steps = run_options(replace(first, fold=ready)).training.steps or 0
        ms = step_ms(fold, costs["steps"][first.student], first.row)
        expected.append(Expected(first.row.name, left, steps, ms, seconds[first.student]))
    return expected


def by_row(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs of each student and row, which differ in their seed."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.student, run.row.name), []).append(run)
    return list(groups.values())


def step_ms(fold: Fold, steps: dict[str, dict[str, float]], row: Row) -> float:
    """Of a row's step; UserError if it could not be timed."""
    if row.step not in steps:
        raise UserError(
            f"{row.name}: its training step fails on this device, as {fold.outpath / 'timing.log'} says; give a "
            "smaller --batch_size, another --device, or --methods without it"
        )
    return steps[row.step]["ms"]


@contextmanager
def any_teacher(fold: Fold) -> Iterator[Fold]:
    """The fold with its trained teacher, or with an untrained one, whose steps take as long."""
    trained = teacher_folder(fold)
    if is_trained(trained):
        yield replace(fold, tckpt=trained / "best.ckpt")
        return
    segmenter, _ = untrained(fold, fold.identity["model"])
    content = {**segmenter.description(), "weights": segmenter.network.state_dict(), "config": {}}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "untrained.ckpt"
        save_checkpoint(path, {**content, "cases": {"train": [], "val": []}})
        yield replace(fold, tckpt=path)


def untrained(fold: Fold, model: str) -> tuple[Segmenter, SliceFolder]:
    """A network with random weights, and the slices that it would train on."""
    data = fold.data
    slices = open_slices(data.train_data_path, str(data.dataset), str(data.task), "train", data.splits)
    return new_segmenter(RunOptions(model, data, fold.training), slices)[0], slices


def evaluation_seconds(fold: Fold, model: str, schedule: Schedule) -> float:
    """What a run spends on its validations and its test cases by both protocols, without distances."""
    segmenter, slices = untrained(fold, model)
    segmenter.network.to(choose_device(fold.training.device))
    data = fold.data
    test = open_slices(data.test_data_path or data.train_data_path, slices.dataset, slices.label_map.name, "test")
    case = next(cases_in_slices(slices, slices.val_cases[:1], segmenter.window))
    speed = segmentation_speed(segmenter, case.image[:SLICES], case.window)
    # Once more than there are validations, to choose the decision; the test cases' slices with the target twice.
    validations = math.ceil(schedule.steps / schedule.val_every) + 1
    validated = validations * sum(len(slices.cases[name]) for name in slices.val_cases)
    return (validated + sum(map(len, test.cases.values())) + len(test.train)) / speed


def hours_table(expected: Sequence[Expected]) -> pd.DataFrame:
    """A line for each training, with the hours of those that are left."""
    lines = [
        {
            "training": each.name,
            "left": str(each.left),
            "steps": str(each.steps),
            "ms a step": f"{each.ms:.0f}",
            "hours": f"{each.hours:.1f}",
        }
        for each in expected
    ]
    total = sum(each.hours for each in expected)
    return pd.DataFrame([*lines, {**dict.fromkeys(lines[0], ""), "training": "together", "hours": f"{total:.1f}"}])
