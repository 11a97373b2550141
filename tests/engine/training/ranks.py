"""Trainings that several processes, or one, run for a test: `python -m tests.engine.training.ranks SLICES OUT`.

Networks are in float64 with batch norm in eval mode, and learn by SGD without augmentation, so that what differs
between one process and several is not rounding; losses are in float32, as always.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from datasets.frame import Frame
from datasets.loader import SliceDataset, TrainingLoader
from datasets.slices.slice_folder import SliceFolder
from distillation import build_method, parse_methods
from distillation.distiller import Distiller, in_float32
from distillation.task import SupervisedTask, TrainingTask
from distillation.teacher import NetworkTeacher
from engine.device import Precision
from engine.options import TrainingOptions
from engine.segmenter import Segmenter
from engine.training.ranks import together
from engine.training.run_folder import RunFolder
from engine.training.schedule import Schedule
from engine.training.trainer import Trainer
from engine.training.validation import Validation
from networks.contract import Features
from tests.small import SmallNetwork
from utils.across import rank, ranks
from utils.batch import Batch

LONG, SHORT = 20, 3
RUNS = {
    "": LONG,
    "hlfd": LONG,
    "cirkd": LONG,
    **dict.fromkeys(("kd", "dist", "cwd", "fitnet", "ofd", "mgd", "vid", "ickd", "sp", "rkd", "skd_pairwise"), SHORT),
    **dict.fromkeys(("ifvd", "dsd", "emkd", "prototypes", "skd_holistic", "ktaad,steps=2", "reviewkd"), SHORT),
}
"""Method, or "" for none, and steps: of each family, those that compare slices, a memory, what is prepared first."""
VARIANTS = {"balanced": "hlfd", "mixed": "kd"}
"""With the terms' gradients balanced, and with mixed slices."""
LR = 0.02


class DoubleNetwork(SmallNetwork):
    """In float64, with batch norm in eval mode."""

    def __init__(self, classes: int, width: int = 4) -> None:
        super().__init__(classes, width)
        self.double()

    def features(self, image: Tensor) -> Features:
        return super().features(image.double())

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


class DoubleTeacher(NetworkTeacher):
    """Answers in float32, as methods that are prepared with it take them."""

    def features(self, batch: Batch) -> Features:
        return in_float32(super().features(batch), True)


def trainer_of(slices: SliceFolder, folder: Path, name: str, steps: int, writes: bool) -> Trainer:
    torch.manual_seed(0)
    network = DoubleNetwork(2)
    task: TrainingTask = SupervisedTask(network)
    if kd := VARIANTS.get(name, name):
        teacher = DoubleNetwork(2, width=6)
        method = build_method(parse_methods([kd]), network.channels, teacher.channels)
        task = Distiller(network, DoubleTeacher(teacher), method, balance=0.5 if name == "balanced" else 0.0)
    segmenter = Segmenter(network, "tiny", "kits", slices.label_map, Frame(64, 0), (-200.0, 300.0))
    dataset = SliceDataset(slices, slices.train[:-8], segmenter.frame, "none", seed=1)
    loader = TrainingLoader(dataset, batch_size=3, workers=0, mixup_alpha=1.0 if name == "mixed" else 0.0)
    loader.part, loader.parts = rank(), ranks()
    precision = Precision("off", torch.device("cpu"))
    cases = list(slices.cases)[-2:]
    folder = RunFolder(folder, "kits_tumor_tiny", {}, {"train": [], "val": []}, writes)
    validation = Validation(segmenter, slices, cases, 8, precision)
    trainer = Trainer(task, segmenter, loader, validation, Schedule(steps, 10, LR), precision, folder)
    trainer.optimizers = [
        torch.optim.SGD(trainer.optimizers[0].param_groups[0]["params"], lr=LR),
        *trainer.optimizers[1:],
    ]
    return trainer


def gradients_of(task: TrainingTask) -> Tensor:
    """What was measured of the gradients of the terms: shares, and the weights that balance them."""
    if not isinstance(task, Distiller):
        return torch.zeros(0)
    scales = list(task.balance.scales.values()) if task.balance else []
    return torch.tensor([*task.gradient_share.measured["start"], *scales])


def train_all(slices: Path, out: Path) -> None:
    """Each run's last state, in a file of this process."""
    opened = SliceFolder.open(slices, "kits", "tumor")
    for name, steps in {**RUNS, **dict.fromkeys(VARIANTS, SHORT)}.items():
        trainer = trainer_of(opened, out / (name or "alone"), name, steps, writes=rank() == 0)
        history = trainer.fit().history
        scores = torch.tensor([[entry["score"], entry["train"]["loss"]] for entry in history])
        state = {key: value for key, value in trainer.task.state_dict().items() if isinstance(value, Tensor)}
        state |= {"history": scores, "random": torch.get_rng_state(), "gradients": gradients_of(trainer.task)}
        torch.save(state, out / f"{name or 'alone'}.{rank()}.pt")


if __name__ == "__main__":
    with together(TrainingOptions(device="cpu")):
        train_all(Path(sys.argv[1]), Path(sys.argv[2]))
