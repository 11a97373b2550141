"""A benchmark's rows: what a word of the command line trains a student with."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import cast

from distillation import build_method, parse_methods
from distillation.distiller import SCHEDULES
from distillation.segmentation_loss import segmentation_equation
from distillation.specs import MethodSpec
from distillation.teacher import AnswersInBatch
from engine.nnunet.segmenter import channels_in_folder
from engine.options import KDSchedule, is_nnunet
from networks import build
from networks.contract import Channels
from utils.errors import UserError
from utils.numbers import float_in
from utils.registry import match_name

UNDISTILLED = "undistilled"
LONGER = "undistilled, longer"
EQUAL_TIME = ", equal time"
ON_DISK = "answers on disk"
"""What stands for a teacher's network where there is none."""
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

    def equal_time(self) -> Row:
        """The same, trained for the time of the longer undistilled row."""
        return replace(self, name=f"{self.name}{EQUAL_TIME}")

    @property
    def step(self) -> str:
        """The name under which the row's step is timed."""
        return step_name(self.name)


def step_name(row: str) -> str:
    """Rows of another length share their step with those of the usual one."""
    return UNDISTILLED if row == LONGER else row.removesuffix(EQUAL_TIME)


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
    method = build_method(row.methods, channels_of(student, classes), channels_of(teacher, classes))
    options = " ".join(spec.definition() for spec in row.methods)
    return f"{segmentation_equation(method.focal_detached)} + {method.equation()}; {options}"


@cache
def channels_of(name: str, classes: int) -> Channels:
    """Of a network by its name, of nnU-Net's in a folder (nnunet:FOLDER[:FOLD]), or of answers on disk."""
    if name == ON_DISK:
        return AnswersInBatch(classes).channels
    if is_nnunet(Path(name)):
        return channels_in_folder(Path(name), classes)
    return build(name, classes).channels
