"""What a user chooses, as frozen dataclasses: made once from the command line, never changed after that.

Nothing heavy is imported, for `--help` should answer at once.
"""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Literal

from distillation.specs import MethodSpec
from networks import file_label
from utils.errors import UserError
from utils.numbers import (
    Interval,
    NonNegative,
    NonNegativeInt,
    Number,
    Positive,
    PositiveInt,
    Share,
    StepsOrMinutes,
    int_from,
)
from utils.options import option

Cache = Literal["auto", "ram", "device", "none"]
KDSchedule = Literal["constant", "warmup", "decay"]
ALIASES = {"pretrained": "init"}
"""Earlier spellings of flags of training."""
Window = tuple[Number, Number]
"""(low, high) in HU for CT, in the image's own units for MR."""
SAVE_EVERY = Interval(minutes=10)
NNUNET = "nnunet:"
"""Before the model folder of a teacher that nnU-Net trained."""


def is_nnunet(teacher: Path) -> bool:
    """Whether a teacher is named as nnunet:FOLDER[:FOLD]."""
    return str(teacher).startswith(NNUNET)


@dataclass(frozen=True)
class DataOptions:
    """data

    None stands for the teacher's choice, or, without a teacher, the data set's own.
    """

    dataset: str | None = option(None, "kits, lits, acdc, heart, msd or list (default: kits; to distil, the teacher's)")
    task: str | None = option(None, "organ, tumor, all, ... (default: tumor; to distil, the teacher's)")
    train_data_path: Path | None = option(
        None, "slices that SliceMaker wrote (default: data/<dataset> in the repository, or train in it)", identity=False
    )
    test_data_path: Path | None = option(
        None, "slices to test on (default: data/<dataset> in the repository, or test in it)", identity=False
    )
    splits: Path | None = option(
        None, "a file that says which cases train, validate and test, in place of the slices' own", identity=False
    )
    val_fraction: Share = option(0.1, "share of the cases to validate on, where none were set apart")
    size: NonNegativeInt | None = option(
        None, "slices are resized to SIZE x SIZE; 0 keeps them (default: 512; to distil, the teacher's)"
    )
    crop: NonNegativeInt | None = option(
        None, "pixels a side that the network sees; 0 for all (default: 3/4 of SIZE; to distil, the teacher's)"
    )
    window: Window | None = option(
        None, "intensity window, HU for CT (default: the data's; to distil, the teacher's)", metavar=("LO", "HI")
    )
    augment: Literal["none", "mild", "paper", "strong"] = option(
        "mild",
        "of training slices; mild: small turns, scales and shifts, gamma, noise; paper: flips and quarter turns; "
        "strong: these, and elastic deformations",
    )
    mixup: NonNegative = option(
        0.0, "mix the slices of a batch, in shares of Beta(ALPHA, ALPHA); 0: off", metavar="ALPHA"
    )

    def __post_init__(self) -> None:
        if self.window is not None and self.window[0] >= self.window[1]:
            raise UserError(f"--window {self.window[0]:g} {self.window[1]:g}: the first number must be the lower one")


@dataclass(frozen=True)
class TrainingOptions:
    """training: for how long, how fast and where

    The steps that epochs, steps and val_every become are part of a run's identity (`Schedule`), not these themselves.
    """

    mode: Literal["train", "test"] = option("train", "test: score best.ckpt", identity=False)
    checkpoint_path: Path | None = option(None, "folder to write to (default: checkpoints/<run>)", identity=False)
    epochs: PositiveInt = option(100, "passes over the training slices", identity=False, exclusive="length")
    steps: PositiveInt | None = option(None, "optimiser steps, in place of epochs", identity=False, exclusive="length")
    batch_size: PositiveInt = option(8, "slices in a batch, or, of a volumetric network, in all its blocks")
    lr: Positive = option(1e-3, "Adam's first learning rate, which falls to 1e-6 with every step")
    seed: NonNegativeInt = option(0, "of weights, order and augmentation")
    val_every: PositiveInt | None = option(
        None,
        "epochs, or with --steps steps, between validations (default: 1, or STEPS / 4)",
        identity=False,
    )
    patience: NonNegativeInt = option(0, "validations without a better one to stop after; 0: never")
    save_every: StepsOrMinutes = option(
        SAVE_EVERY,
        "steps, as in 500, or minutes, as in 10min, from one last.ckpt to the next; each validation writes one too",
        identity=False,
        metavar="N|Nmin",
    )
    resume: bool = option(
        False,
        "continue from last.ckpt, or start where there is none, as a job that may be restarted wants",
        identity=False,
    )
    init: str | None = option(
        None,
        "first weights: imagenet, a file of an encoder's, or a checkpoint, of which all blocks that fit are taken; to "
        "distil, also teacher (default: random)",
        nargs="?",
        const="imagenet",
        metavar="imagenet|FILE|CKPT|teacher",
    )
    amp: Literal["auto", "off", "bf16", "fp16"] = option(
        "auto", "mixed precision; auto: where the processor has fast instructions for it, and the network gains by them"
    )
    workers: NonNegativeInt | None = option(
        None, "processes that load slices (default: by the number of cores)", identity=False
    )
    cache: Cache = option(
        "auto",
        "keep slices that were read, in the host's memory or on the device; auto: where they take an eighth of what "
        "is free, at most",
        identity=False,
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:1 or mps", identity=False)
    sync_bn: bool = option(
        False, "batch norm over the whole batch of several processes, on GPUs (docs/scaling.md)", identity=False
    )
    deterministic: bool = option(
        False, "the same weights at every launch on a GPU too, more slowly; a CPU always gives them", identity=False
    )


@dataclass(frozen=True)
class NetworkOptions:
    """network"""

    model: str | None = option(None, "raunet, resnet_18, smp/fpn/mit_b1, segresnet3d, ... (default: raunet)")
    block: int | None = option(None, "slices at once that a volumetric network sees (default: 16)", type=int_from(2))


@dataclass(frozen=True)
class StudentOptions:
    """student"""

    smodel: str | None = option(None, "resnet_18, malunet, smp/fpn/mit_b1, ... (default: resnet_18)")


@dataclass(frozen=True)
class MethodOptions:
    """methods: what the student learns from the teacher"""

    kd: tuple[str, ...] = option((), "methods to add up (default: hlfd)", metavar="METHOD[:WEIGHT][,OPTION=VALUE]")
    loss_type: str | None = option(None, "one method, by its published name or ours")
    alpha: NonNegative | None = option(None, "weight of HLFD's pixel terms, or another method's alpha")
    beta: NonNegative | None = option(None, "weight of HLFD's feature terms, or another method's beta")
    temperature: Positive | None = option(None, "of softened predictions (default: each method's own)")
    layers: tuple[str, ...] | None = option(None, "stages to compare (default: each method's own)", metavar="STAGE")

    def specs(self) -> tuple[MethodSpec, ...]:
        """The methods, each with its options; UserError for an unknown one, or an option that no method has."""
        from distillation import parse_methods

        if self.kd and self.loss_type:
            raise UserError("--kd and --loss_type name the same thing; give one of them")
        if joined := [text for text in self.kd if "/" in text]:
            raise UserError(
                f"--kd {joined[0]}: methods are separated by spaces here, as in --kd kd at:0.5; balance, schedule and "
                "unlabelled are options, --balance, --kd_schedule and --unlabelled"
            )
        shared = {"alpha": self.alpha, "beta": self.beta, "temperature": self.temperature, "layers": self.layers}
        return parse_methods(self.kd or (self.loss_type or "hlfd",), **shared)


@dataclass(frozen=True)
class DistillationOptions:
    """distillation: from which teacher, and how the methods act"""

    tckpt: Path | None = option(
        None,
        "the teacher's checkpoint, or nnunet:FOLDER[:FOLD], a 2D network of nnU-Net",
        identity=False,
        exclusive="teacher",
    )
    teacher_probabilities: tuple[Path, ...] = option(
        (),
        "in place of a checkpoint, a teacher's answers on disk: SLICES that SliceMaker.py --teacher_probabilities "
        "wrote (docs/teachers.md)",
        metavar="DIR",
        identity=False,
        exclusive="teacher",
    )
    kd_schedule: KDSchedule = option(
        "constant", "the distillation's weight: constant, up in the first quarter, or down to 0"
    )
    balance: NonNegative = option(
        0.0,
        "give all terms the same gradient, together SHARE of the segmentation loss's; 0: leave their weights",
        metavar="SHARE",
    )
    unlabelled: tuple[Path, ...] = option(
        (),
        "slices without masks to distil on too (of SliceMaker --unlabelled, or the training slices themselves)",
        metavar="DIR",
        identity=False,
    )
    unlabelled_per_batch: PositiveInt | None = option(
        None, "how many unlabelled slices join each batch (default: as many as labelled ones)", metavar="N"
    )
    record_terms: NonNegativeInt = option(
        0,
        "write each term's value and gradient to terms.jsonl every STEPS steps; 0: never",
        metavar="STEPS",
        identity=False,
    )
    methods: tuple[MethodSpec, ...] = field(default=(), metadata={"identity": False})
    """Their definitions stand for them in a run's identity."""

    def __post_init__(self) -> None:
        if not (self.tckpt or self.teacher_probabilities):
            raise UserError(
                "who is the teacher? one is required: --tckpt CKPT, or its answers on disk, --teacher_probabilities DIR"
            )
        if self.unlabelled_per_batch and not self.unlabelled:
            raise UserError("--unlabelled_per_batch: there are no such slices; name their folder with --unlabelled DIR")


@dataclass(frozen=True)
class RunOptions:
    """One training: a network's name, its data and training, and, for a student, its distillation.

    In `data`, dataset, task and size are decided (`engine.training.run.decide_data`). block: slices at once that a
    volumetric network sees; None is its own number.
    """

    model: str
    data: DataOptions
    training: TrainingOptions
    distillation: DistillationOptions | None = None
    block: int | None = None

    @property
    def name(self) -> str:
        """<dataset>_<task>_<model>, or <dataset>_<task>_kd_<model>_<methods>: for files and folders."""
        model = file_label(self.model)
        if self.distillation is not None:
            methods = "_".join(map(str, self.distillation.methods))
            model = f"kd_{model}_{re.sub('[^A-Za-z0-9.=]+', '_', methods)}"
        return f"{self.data.dataset}_{self.data.task}_{model}"

    @property
    def folder(self) -> Path:
        return self.training.checkpoint_path or Path("checkpoints") / self.name


@dataclass(frozen=True)
class PredictionOptions:
    """prediction: how a checkpoint is used"""

    ckpt: Path = option(MISSING, "a checkpoint of train.py or train_kd.py, or a file of scripts/export.py")
    decision: Literal["chosen", "argmax"] = option(
        "chosen", "chosen: as the validation cases chose; argmax: the most probable class"
    )
    threshold: Share | None = option(None, "foreground where its probability is higher, in place of --decision")
    batch_size: PositiveInt = option(8, "slices at once")
    device: str = option("auto", "auto, cpu, cuda, cuda:1 or mps")
    runtime: Literal["onnxruntime", "openvino"] = option("onnxruntime", "what runs a .onnx file")
