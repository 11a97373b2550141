"""A benchmark's plan: its rows, its runs, what each run is trained with, and which are done."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from distillation import build_method, plain_spec
from distillation.segmentation_loss import segmentation_equation
from distillation.task import SCHEDULES
from engine.device import choose_device
from engine.options import Parser, data_options, real, training_options
from networks import build, file_label
from networks.contract import Channels
from utils.errors import UserError
from utils.files import read_json
from utils.registry import match_name

UNDISTILLED = "undistilled"
LONGER = "undistilled, longer"
JOINER = "/"
"""Between the methods of one row: specs themselves use `:`, `,`, `=` and `+`."""


@dataclass(frozen=True)
class Row:
    """A line of a student's table: its name there, the methods' specs (none: not distilled), and how they act."""

    name: str
    kd: tuple[str, ...] = ()
    schedule: str = "constant"
    balance: float = 0.0
    unlabelled: bool = False


@dataclass(frozen=True)
class Benchmark:
    """What all runs share.

    words: train.py's options as typed; identity: what was found in the files, so that a run is not taken for one of
    another teacher, or of slices and cases with other names; threads: of each run on a CPU, 0 leaves torch's own
    number; unlabelled: slices for the rows that ask for them, and unlabelled_identity: what was found there.
    """

    tckpt: Path
    outpath: Path
    train_data_path: Path | None
    test_data_path: Path | None
    words: tuple[str, ...]
    identity: Mapping[str, Any]
    validation_only: bool = False
    distances: bool = True
    threads: int = 0
    unlabelled: tuple[Path, ...] = ()
    unlabelled_identity: str | None = None


@dataclass(frozen=True)
class Run:
    """One training; length: in multiples of the others' steps or epochs."""

    student: str
    row: Row
    seed: int
    folder: Path
    length: float = 1.0


def read_row(text: str) -> Row:
    """The row that a word such as `kd/at:0.5`, `dist/unlabelled` or `hlfd/balance=1/schedule=decay` means."""
    specs: list[str] = []
    acts: list[str] = []
    schedule, balance, unlabelled = "constant", 0.0, False
    for part in text.split(JOINER):
        key, _, value = part.partition("=")
        if key == "schedule":
            schedule = match_name("schedule", value, SCHEDULES)
            acts.append(f"schedule={schedule}")
        elif key == "balance":
            try:
                balance = real(0)(value)
            except argparse.ArgumentTypeError as error:
                raise UserError(f"--methods {text}: balance {error}") from None
            acts.append(f"balance={balance:g}")
        elif part == "unlabelled":
            unlabelled = True
            acts.append(part)
        else:
            specs.append(plain_spec(part))
    if not specs:
        raise UserError(f"--methods {text}: names no method")
    return Row(JOINER.join([*specs, *acts]), tuple(specs), schedule, balance, unlabelled)


def plan(
    benchmark: Benchmark,
    students: Sequence[str],
    rows: Sequence[Row],
    seeds: Sequence[int],
    longer: Mapping[str, float],
) -> list[Run]:
    """Every run, seed by seed, so that an unfinished benchmark has whole seeds.

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
    plain = "".join(c if c.isalnum() or c in ".=+,-" else "_" for c in row.replace(", ", "_"))
    return outpath / "runs" / file_label(student) / plain / f"seed_{seed}"


def has_begun(benchmark: Benchmark, student: str, row: str) -> bool:
    """Whether there is a run of this row, with any seed."""
    return _folder(benchmark.outpath, student, row, 0).parent.exists()


def training_args(benchmark: Benchmark, run: Run) -> argparse.Namespace:
    """The options with which train.py, or train_kd.py, does this run; epochs are then counted in steps."""
    parser = Parser(None)
    data_options(parser, inherited=True)
    training_options(parser, epochs=120)
    args = parser.parse_args([*benchmark.words, "--seed", str(run.seed)])
    from engine.training.run import choose_val_every

    args.val_every = choose_val_every(args)
    for name in ("epochs", "steps", "val_every"):
        if getattr(args, name) is not None:
            # Rounded first: 200 x 1.1 is a little more than 220.
            setattr(args, name, math.ceil(round(getattr(args, name) * run.length, 6)))
    args.train_data_path, args.test_data_path = benchmark.train_data_path, benchmark.test_data_path
    args.checkpoint_path = run.folder
    for name in ("dataset", "task", "window", "size", "crop"):
        setattr(args, name, benchmark.identity[name])
    args.resume = (run.folder / "last.ckpt").exists()
    if run.row.kd:
        args.smodel, args.kd, args.tckpt = run.student, list(run.row.kd), benchmark.tckpt
        args.kd_schedule, args.balance = run.row.schedule, run.row.balance
        args.unlabelled = benchmark.unlabelled if run.row.unlabelled else None
        args.teacher = benchmark.identity["teacher"]
    else:
        args.model = run.student
    return args


def settings(benchmark: Benchmark, run: Run) -> dict[str, Any]:
    """What decides a run's scores."""
    args = training_args(benchmark, run)
    device = choose_device(args.device)
    length = {"steps": args.steps} if args.steps else {"epochs": args.epochs}
    options = ("batch_size", "lr", "augment", "amp", "val_every", "val_fraction", "pretrained")
    return {
        "student": run.student,
        "method": run.row.name,
        "seed": run.seed,
        **length,
        **{name: getattr(args, name) for name in options},
        **benchmark.identity,
        **({"unlabelled": benchmark.unlabelled_identity} if run.row.unlabelled else {}),
        "loss": loss_of(run.row, run.student, benchmark.identity["model"], benchmark.identity["classes"]),
        "device": device.type,
        "threads": (benchmark.threads or torch.get_num_threads()) if device.type == "cpu" else None,
        "scored on": "validation cases" if benchmark.validation_only else "test cases",
        "distances": benchmark.distances,
    }


def distinct(
    rows: Sequence[Row], students: Sequence[str], identity: Mapping[str, Any]
) -> tuple[list[Row], dict[str, str]]:
    """The rows but those that train what an earlier one does, and of each such one's name the earlier one's.

    UserError if a row cannot be built for a student.
    """
    kept: dict[object, Row] = {}
    same = {}
    for row in rows:
        losses = tuple(loss_of(row, student, identity["model"], identity["classes"]) for student in students)
        first = kept.setdefault((losses, row.schedule, row.balance, row.unlabelled), row)
        if first != row:
            same[row.name] = first.name
    return list(kept.values()), same


@cache
def loss_of(row: Row, student: str, teacher: str, classes: int) -> str:
    """What the row's runs minimise, so that none is taken for one of other defaults; UserError if it can't be built."""
    if not row.kd:
        return segmentation_equation()
    return build_method(row.kd, _channels(student, classes), _channels(teacher, classes)).definition()


@cache
def _channels(name: str, classes: int) -> Channels:
    return build(name, classes).channels


def is_finished(benchmark: Benchmark, run: Run, anywhere: bool = False) -> bool:
    """Whether the run's result is there; UserError if the folder holds, or has begun, a run with other settings.

    anywhere: on whatever device and threads it was done.
    """
    begun = run.folder / "settings.json"
    if not begun.exists():
        return False
    before = read_json(begun)
    now = settings(benchmark, run)
    for key in {**before, **now}:
        if before.get(key) != now.get(key) and not (anywhere and key in ("device", "threads")):
            same = "--jobs and OMP_NUM_THREADS" if key == "threads" else "options and data"
            raise UserError(
                f"{run.folder}: was begun with {key} = {before.get(key)}, not {now.get(key)}; "
                f"give the same {same}, or another --outpath"
            )
    return (run.folder / "result.json").exists()
