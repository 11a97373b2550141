"""The benchmark's command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from engine.benchmark.slurm import SlurmOptions
from engine.options import ALIASES as TRAINING_ALIASES
from engine.options import DataOptions, TrainingOptions, is_nnunet
from utils.cores import usable_cores
from utils.errors import UserError
from utils.numbers import NonNegative, NonNegativeInt, PositiveInt
from utils.options import Parser, add_options, given_options, option, read_options

PRESETS: dict[str, dict[str, Any]] = {
    "cpu": {"steps": 250, "batch_size": 4, "amp": "off"},
    "full": {"epochs": 120, "val_every": 4, "batch_size": 8},
}
LONGER_OF_PRESET = {"cpu": 2.0}
"""A length that isn't measured: the next launch gives the same tables."""
OF_THE_TEACHER = ("dataset", "task", "size", "crop", "window")
"""Options of data that a given teacher has decided, unless nnU-Net trained it."""
OF_DATA = ("train_data_path", "test_data_path", "augment", "mixup", "val_fraction", *OF_THE_TEACHER)
OF_TRAINING = (
    "steps",
    "epochs",
    "val_every",
    "batch_size",
    "lr",
    "amp",
    "init",
    "workers",
    "cache",
    "device",
    "deterministic",
)
ALIASES = {"teacher": "tckpt", "students": "smodel", **TRAINING_ALIASES}


@dataclass(frozen=True)
class BenchmarkOptions(SlurmOptions):
    """benchmark: what is compared, and where it goes"""

    tckpt: Path | None = option(
        None, "the teacher's checkpoint, or nnunet:FOLDER[:FOLD], a 2D network of nnU-Net", exclusive="teacher"
    )
    train_teacher: str | None = option(
        None, "train this network first, as the students are, to be the teacher", exclusive="teacher", metavar="NETWORK"
    )
    teacher_probabilities: tuple[Path, ...] = option(
        (),
        "the teacher's answers on disk, to all slices: SLICES that SliceMaker.py --teacher_probabilities wrote",
        exclusive="teacher",
        metavar="DIR",
    )
    teacher_steps: PositiveInt | None = option(None, "for how long (default: as long as the students)", metavar="STEPS")
    folds: PositiveInt | None = option(
        None,
        "cross-validation by case, with a teacher for each of K folds of an archive cut with --slices all",
        metavar="K",
    )
    fold: tuple[NonNegativeInt, ...] = option((), "only these folds, from 0 on (default: all)", metavar="FOLD")
    smodel: tuple[str, ...] = option(("resnet_18",), "students", metavar="NETWORK")
    methods: tuple[str, ...] = option(("hlfd",), "rows of the tables", nargs="*", metavar="METHOD[/METHOD...]")
    seeds: tuple[NonNegativeInt, ...] = option((0, 1, 2), "a training each", metavar="SEED")
    longer: NonNegative | None = option(
        None,
        "length of the longer undistilled row, in others; 0: no such row (default: 2 with the preset cpu, else as "
        "long as the slowest method takes)",
        metavar="R",
    )
    matched: Literal["steps", "time", "both"] = option(
        "steps", "distilled rows train for as many steps as the undistilled one, or for the longer one's time"
    )
    against: str = option("undistilled", "the row that gains are over", metavar="ROW")
    also_test: tuple[Path, ...] = option(
        (), "other data to score on, raw cases or slices, in tables of their own", metavar="DIR"
    )
    unlabelled: tuple[Path, ...] = option((), "slices for rows such as kd/unlabelled", metavar="DIR")
    validation_only: bool = option(False, "score the validation cases: for choosing recipes")
    no_distances: bool = option(False, "leave HD95 out, about a second a case")
    outpath: Path = option(Path("runs/benchmark"), "folder to write to")
    report: bool = option(False, "train nothing: tables of the runs in this command that are finished")
    preset: Literal["cpu", "full"] = option(
        "cpu",
        "cpu: 250 steps of 4 slices, four validations, amp off, meant for "
        "teachers of small slices; full: 120 epochs in batches of 8, a validation every 4, amp auto; flags override it",
    )
    jobs: PositiveInt = option(1, "runs at the same time; on a CPU each then has one thread")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.report and (self.shard or self.slurm):
            raise UserError(f"--report: is of all shards; leave --{'shard' if self.shard else 'slurm'} out")
        if not (self.tckpt or self.train_teacher or self.teacher_probabilities):
            raise UserError(
                "who is the teacher? give its checkpoint with --tckpt, its network with --train_teacher, or its "
                "answers on disk with --teacher_probabilities"
            )
        if self.teacher_probabilities and self.also_test:
            raise UserError(
                "--also_test: a teacher on disk has answered for its own slices alone, and is no row of other data; "
                "score the students there with scripts/evaluate.py"
            )
        if self.teacher_steps and not self.train_teacher:
            raise UserError("--teacher_steps: the teacher is trained already; leave it out")
        if self.folds and not self.train_teacher:
            raise UserError("--folds: each fold needs a teacher that has not seen its test cases; give --train_teacher")
        if self.folds == 1:
            raise UserError("--folds 1: leaves no case to train on; give 2 or more, or leave it out")
        if wrong := [fold for fold in self.fold if fold >= (self.folds or 0)]:
            raise UserError(f"--fold {wrong[0]}: there are {self.folds or 0} folds, numbered from 0; see --folds")

    @property
    def longer_length(self) -> float | None:
        """What was asked for, or the preset's; None: to be measured."""
        return LONGER_OF_PRESET.get(self.preset) if self.longer is None else self.longer


def read_command(
    description: str | None, words: Sequence[str] | None = None
) -> tuple[BenchmarkOptions, DataOptions, TrainingOptions]:
    """The command line; what it leaves out of a run's training is the preset's."""
    parser = Parser(description, ALIASES)
    add_options(parser, BenchmarkOptions)
    add_options(parser, DataOptions, OF_DATA)
    add_options(parser, TrainingOptions, OF_TRAINING, **dict.fromkeys(OF_TRAINING))
    args = parser.parse_args(words)
    benchmark = read_options(args, BenchmarkOptions)
    of_teacher = benchmark.tckpt is not None and not is_nnunet(benchmark.tckpt)
    if of_teacher and (decided := given_options(args, OF_THE_TEACHER)):
        raise UserError(f"--{next(iter(decided))}: is the teacher's, which --tckpt names; leave it out")
    given = given_options(args, OF_TRAINING)
    preset = dict(PRESETS[benchmark.preset])
    if "steps" in given:
        # A preset's val_every counts epochs.
        preset = {name: value for name, value in preset.items() if name not in ("epochs", "val_every")}
    if "epochs" in given:
        preset.pop("steps", None)
    if benchmark.jobs > 1 and "workers" not in given:
        cores = usable_cores()
        given["workers"] = min(8, cores // benchmark.jobs - 1) if cores > benchmark.jobs else 0
    training = replace(TrainingOptions(), **preset | given)
    return benchmark, read_options(args, DataOptions), training
