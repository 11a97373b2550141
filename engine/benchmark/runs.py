"""A benchmark's folds and runs: what each is trained with, and which are finished."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from datasets.slices.digests import as_recorded
from engine.benchmark.rows import LONGER, UNDISTILLED, Row, loss_of
from engine.device import choose_device
from engine.options import DataOptions, DistillationOptions, RunOptions, TrainingOptions, is_nnunet
from engine.training.schedule import Schedule
from networks import file_label
from utils.errors import UserError
from utils.files import read_json
from utils.options import identity

RESULTS_FORMAT = 3
"""Of settings.json, result.json and teacher.json; earlier ones have no gradient shares and no chosen decision."""


@dataclass(frozen=True)
class OtherData:
    """Data that runs are also scored on: raw cases, or slices; name: in files and tables."""

    name: str
    path: Path


@dataclass(frozen=True)
class Fold:
    """One division of the cases into those to train, validate and test on, and what all of its runs share.

    number: None where the slices' own division is the only one. data: decided; training: of every run, at another seed
    and length; identity: what was found in the files, so that a run is not taken for one of another teacher, or of
    slices and cases with other names; it lacks the teacher's weights as long as there is no checkpoint `tckpt`.
    steps_per_epoch: by seed, for where no cases were set apart to validate on, the seed picks them. threads: of each
    run on a CPU, 0 leaves torch's own number. unlabelled: slices for the rows that ask for them, and
    unlabelled_identity: what was found there. answers: folders of the teacher's, in place of a checkpoint.
    """

    number: int | None
    tckpt: Path | None
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
    also_test: tuple[OtherData, ...] = ()
    answers: tuple[Path, ...] = ()

    @property
    def label(self) -> str:
        """In names of files and folders: "" or "fold_<number>_"."""
        return "" if self.number is None else f"fold_{self.number}_"

    @property
    def teacher(self) -> Path:
        """The teacher's checkpoint, which must be there by now."""
        assert self.tckpt is not None
        return self.tckpt

    @property
    def teacher_network(self) -> str:
        """What `rows.channels_of` finds the teacher's stages by: its network's name, or nnU-Net's folder."""
        return str(self.tckpt) if self.tckpt and is_nnunet(self.tckpt) else str(self.identity["model"])


@dataclass(frozen=True)
class Run:
    """One training; length: in multiples of the others' steps."""

    fold: Fold
    student: str
    row: Row
    seed: int
    length: float = 1.0

    @property
    def folder(self) -> Path:
        return row_folder(self.fold.outpath, self.student, self.row.name) / f"{self.fold.label}seed_{self.seed}"


def row_folder(outpath: Path, student: str, row: str) -> Path:
    """Where the runs of a row are."""
    name = "".join(c if c.isalnum() or c in ".=+,-" else "_" for c in row.replace(", ", "_"))
    return outpath / "runs" / file_label(student) / name


def plan_runs(
    folds: Sequence[Fold],
    students: Sequence[str],
    rows: Sequence[Row],
    seeds: Sequence[int],
    lengths: Mapping[str, Mapping[str, float]],
) -> list[Run]:
    """Every run, seed by seed and fold by fold, so that an unfinished benchmark has all rows of its first ones.

    lengths: student -> name of a row -> the multiple of the steps that it takes, for the longer row, which is left out
    without one, and for rows of equal time.
    """
    runs = []
    for seed in seeds:
        for fold in folds:
            for student in students:
                of_student = lengths.get(student, {})
                every_row = [Row(UNDISTILLED), *([Row(LONGER)] if LONGER in of_student else []), *rows]
                runs += [Run(fold, student, row, seed, of_student.get(row.name, 1.0)) for row in every_row]
    return runs


def run_options(run: Run) -> RunOptions:
    """What the run is trained with; a run that its folder has begun is resumed.

    Epochs are counted in steps here, so that all rows train equally long and at the same learning rates.
    """
    fold, row = run.fold, run.row
    schedule = Schedule.from_options(fold.training, fold.steps_per_epoch[run.seed])
    # Rounded first: 200 x 1.1 is a little more than 220.
    steps, val_every = (math.ceil(round(each * run.length, 6)) for each in (schedule.steps, schedule.val_every))
    training = replace(
        fold.training, steps=steps, val_every=val_every, seed=run.seed, checkpoint_path=run.folder,
        resume=(run.folder / "last.ckpt").exists(),
    )  # fmt: skip
    distillation = None
    if row.methods:
        unlabelled = fold.unlabelled if row.unlabelled else ()
        distillation = DistillationOptions(
            fold.tckpt, fold.answers, kd_schedule=row.schedule, balance=row.balance, unlabelled=unlabelled,
            methods=row.methods,
        )  # fmt: skip
    return RunOptions(run.student, fold.data, training, distillation)


def settings(run: Run) -> dict[str, Any]:
    """What decides a run's scores."""
    fold = run.fold
    options = run_options(run)
    training = options.training
    return {
        "format": RESULTS_FORMAT,
        "student": run.student,
        "method": run.row.name,
        **identity(options.data),
        **identity(training),
        "steps": training.steps,
        "val_every": training.val_every,
        **fold.identity,
        **({"unlabelled": fold.unlabelled_identity} if run.row.unlabelled else {}),
        "loss": loss_of(run.row, run.student, fold.teacher_network, fold.identity["classes"]),
        **conditions(fold),
        "scored on": "validation cases" if fold.validation_only else "test cases",
        "distances": fold.distances,
    }


def conditions(fold: Fold) -> dict[str, Any]:
    """The device, and the number of threads on a CPU."""
    device = choose_device(fold.training.device)
    return {
        "device": device.type,
        "threads": (fold.threads or torch.get_num_threads()) if device.type == "cpu" else None,
    }


def is_finished(run: Run, anywhere: bool = False) -> bool:
    """Whether the run's result is there; UserError if the folder holds, or has begun, a run with other settings.

    anywhere: on whatever device and threads it was done.
    """
    begun = run.folder / "settings.json"
    return begun.exists() and is_result(run.folder, settings(run), anywhere)


def is_complete(run: Run, anywhere: bool = False) -> bool:
    """Whether it is finished and was scored on all other data too."""
    return is_finished(run, anywhere) and all(is_scored_on(run.folder, data) for data in run.fold.also_test)


def is_scored_on(folder: Path, data: OtherData) -> bool:
    """Whether the network in a folder was scored on just this other data, not on another folder of its name."""
    path = scores_file(folder, data)
    return path.exists() and bool(read_json(path)["path"] == str(data.path))


def scores_file(folder: Path, data: OtherData) -> Path:
    """Where the scores on other data of the network in a folder are kept."""
    return folder / f"also_{data.name}.json"


def is_result(folder: Path, wanted: Mapping[str, Any], anywhere: bool = False) -> bool:
    """Whether a folder whose settings.json is there has its result.json; UserError if it is of other settings."""
    before = as_recorded(read_json(folder / "settings.json"), wanted)
    if before.get("format") != RESULTS_FORMAT:
        raise UserError(f"{folder}: was begun by another version of this project; give another --outpath")
    for key in {**before, **wanted}:
        if before.get(key) != wanted.get(key) and not (anywhere and key in ("device", "threads")):
            same = "--jobs and OMP_NUM_THREADS" if key == "threads" else "options and data"
            raise UserError(
                f"{folder}: was begun with {key} = {before.get(key)}, not {wanted.get(key)}; "
                f"give the same {same}, or another --outpath"
            )
    return is_trained(folder)


def is_trained(folder: Path) -> bool:
    """Whether a student or a teacher has left its result there, of whatever settings."""
    return (folder / "result.json").exists()
