"""A benchmark's rows and runs: what each is trained with, and which are finished."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch

from distillation import build_method, parse_methods
from distillation.distiller import SCHEDULES
from distillation.segmentation_loss import segmentation_equation
from distillation.specs import MethodSpec
from engine.device import choose_device
from engine.options import DataOptions, DistillationOptions, KDSchedule, RunOptions, TrainingOptions
from engine.training.schedule import Schedule
from networks import build, file_label
from networks.contract import Channels
from utils.errors import UserError
from utils.files import read_json
from utils.numbers import float_in
from utils.options import identity
from utils.registry import match_name

UNDISTILLED = "undistilled"
LONGER = "undistilled, longer"
RESULTS_FORMAT = 2
"""Of settings.json, result.json and teacher.json; format 1 had no number, and its regions no voxel counts."""
JOINER = "/"
"""Between the methods of one row: specs themselves use `:`, `,`, `=` and `+`."""


@dataclass(frozen=True)
class Row:
    """A line of a student's table: its name there, the methods (none: not distilled), and how they act."""

    name: str
    methods: tuple[MethodSpec, ...] = ()
    schedule: KDSchedule = "constant"
    balance: float = 0.0
    unlabelled: bool = False


@dataclass(frozen=True)
class Benchmark:
    """What all runs share.

    data: the teacher's, decided; training: of every run, at another seed and length; identity: what was found in the
    files, so that a run is not taken for one of another teacher, or of slices and cases with other names.
    steps_per_epoch: by seed, for where no cases were set apart to validate on, the seed picks them. threads: of each
    run on a CPU, 0 leaves torch's own number. unlabelled: slices for the rows that ask for them, and
    unlabelled_identity: what was found there.
    """

    tckpt: Path
    outpath: Path
    data: DataOptions
    training: TrainingOptions
    steps_per_epoch: Mapping[int, int]
    identity: Mapping[str, Any]
    validation_only: bool = False
    distances: bool = True
    threads: int = 0
    unlabelled: tuple[Path, ...] = ()
    unlabelled_identity: str | None = None


@dataclass(frozen=True)
class Run:
    """One training; length: in multiples of the others' steps."""

    student: str
    row: Row
    seed: int
    folder: Path
    length: float = 1.0


def read_row(text: str) -> Row:
    """The row that a word such as `kd/at:0.5`, `dist/unlabelled` or `hlfd/balance=1/schedule=decay` means."""
    methods: list[str] = []
    actions: list[str] = []
    schedule: KDSchedule = "constant"
    balance, unlabelled = 0.0, False
    for part in text.split(JOINER):
        key, _, value = part.partition("=")
        if key == "schedule":
            schedule = cast(KDSchedule, match_name("schedule", value, SCHEDULES))
            actions.append(f"schedule={schedule}")
        elif key == "balance":
            try:
                balance = float_in(0)(value)
            except argparse.ArgumentTypeError as error:
                raise UserError(f"--methods {text}: balance {error}") from None
            actions.append(f"balance={balance:g}")
        elif part == "unlabelled":
            unlabelled = True
            actions.append(part)
        else:
            methods.append(part)
    if not methods:
        raise UserError(f"--methods {text}: names no method")
    specs = parse_methods(methods)
    return Row(JOINER.join([*map(str, specs), *actions]), specs, schedule, balance, unlabelled)


def distinct_rows(
    rows: Sequence[Row], students: Sequence[str], teacher: str, classes: int
) -> tuple[list[Row], dict[str, str]]:
    """The rows but those that repeat an earlier one's training, and the name of each of those with the earlier one's.

    UserError if a method cannot be built for a student.
    """
    kept: dict[object, Row] = {}
    repeated = {}
    for row in rows:
        for student in students:
            loss_of(row, student, teacher, classes)
        losses = tuple(sorted(method.definition() for method in row.methods))
        first = kept.setdefault((losses, row.schedule, row.balance, row.unlabelled), row)
        if first != row:
            repeated[row.name] = first.name
    return list(kept.values()), repeated


@cache
def loss_of(row: Row, student: str, teacher: str, classes: int) -> str:
    """What the row's runs minimise, with every option, so that none is taken for one of other defaults.

    UserError if a method cannot be built.
    """
    if not row.methods:
        return segmentation_equation()
    method = build_method(row.methods, _channels(student, classes), _channels(teacher, classes))
    options = " ".join(spec.definition() for spec in row.methods)
    return f"{segmentation_equation(method.focal_detached)} + {method.equation()}; {options}"


@cache
def _channels(name: str, classes: int) -> Channels:
    return build(name, classes).channels


def plan_runs(
    benchmark: Benchmark,
    students: Sequence[str],
    rows: Sequence[Row],
    seeds: Sequence[int],
    longer: Mapping[str, float],
) -> list[Run]:
    """Every run, seed by seed, so that an unfinished benchmark has all rows of its first seeds.

    longer: student -> the multiple of the steps that its longer row takes; a student without one has no such row.
    """
    runs = []
    for seed in seeds:
        for student in students:
            lengths = {Row(UNDISTILLED): 1.0}
            if student in longer:
                lengths[Row(LONGER)] = longer[student]
            lengths |= dict.fromkeys(rows, 1.0)
            runs += [
                Run(student, row, seed, _folder(benchmark.outpath, student, row.name, seed), length)
                for row, length in lengths.items()
            ]
    return runs


def _folder(outpath: Path, student: str, row: str, seed: int) -> Path:
    name = "".join(c if c.isalnum() or c in ".=+,-" else "_" for c in row.replace(", ", "_"))
    return outpath / "runs" / file_label(student) / name / f"seed_{seed}"


def has_begun(benchmark: Benchmark, student: str, row: str) -> bool:
    """Whether there is a run of this row, with any seed."""
    return _folder(benchmark.outpath, student, row, 0).parent.exists()


def run_options(benchmark: Benchmark, run: Run) -> RunOptions:
    """What the run is trained with; a run that its folder has begun is resumed.

    Epochs are counted in steps here: an epoch that unlabelled slices join has more steps than one without, and all
    rows are to train equally long and at the same learning rates.
    """
    schedule = Schedule.from_options(benchmark.training, benchmark.steps_per_epoch[run.seed])
    # Rounded first: 200 x 1.1 is a little more than 220.
    steps, val_every = (math.ceil(round(each * run.length, 6)) for each in (schedule.steps, schedule.val_every))
    training = replace(
        benchmark.training, steps=steps, val_every=val_every, seed=run.seed, checkpoint_path=run.folder,
        resume=(run.folder / "last.ckpt").exists(),
    )  # fmt: skip
    row = run.row
    distillation = None
    if row.methods:
        unlabelled = benchmark.unlabelled if row.unlabelled else ()
        distillation = DistillationOptions(
            benchmark.tckpt, kd_schedule=row.schedule, balance=row.balance, unlabelled=unlabelled, methods=row.methods
        )
    return RunOptions(run.student, benchmark.data, training, distillation)


def settings(benchmark: Benchmark, run: Run) -> dict[str, Any]:
    """What decides a run's scores."""
    options = run_options(benchmark, run)
    training = options.training
    device = choose_device(training.device)
    return {
        "format": RESULTS_FORMAT,
        "student": run.student,
        "method": run.row.name,
        **identity(options.data),
        **identity(training),
        "steps": training.steps,
        "val_every": training.val_every,
        **benchmark.identity,
        **({"unlabelled": benchmark.unlabelled_identity} if run.row.unlabelled else {}),
        "loss": loss_of(run.row, run.student, benchmark.identity["model"], benchmark.identity["classes"]),
        "device": device.type,
        "threads": (benchmark.threads or torch.get_num_threads()) if device.type == "cpu" else None,
        "scored on": "validation cases" if benchmark.validation_only else "test cases",
        "distances": benchmark.distances,
    }


def is_finished(benchmark: Benchmark, run: Run, anywhere: bool = False) -> bool:
    """Whether the run's result is there; UserError if the folder holds, or has begun, a run with other settings.

    anywhere: on whatever device and threads it was done.
    """
    begun = run.folder / "settings.json"
    if not begun.exists():
        return False
    before, now = read_json(begun), settings(benchmark, run)
    if before.get("format") != RESULTS_FORMAT:
        raise UserError(f"{run.folder}: was begun by another version of this project; give another --outpath")
    for key in {**before, **now}:
        if before.get(key) != now.get(key) and not (anywhere and key in ("device", "threads")):
            same = "--jobs and OMP_NUM_THREADS" if key == "threads" else "options and data"
            raise UserError(
                f"{run.folder}: was begun with {key} = {before.get(key)}, not {now.get(key)}; "
                f"give the same {same}, or another --outpath"
            )
    return (run.folder / "result.json").exists()
