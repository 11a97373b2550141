"""A trainer small enough to train within a test, and ways to watch and stop it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.frame import Frame
from datasets.loader import SliceDataset, TrainingLoader
from datasets.slices.slice_folder import SliceFolder
from distillation import build_method, parse_methods
from distillation.distiller import Distiller
from distillation.task import SupervisedTask, TrainingTask
from distillation.teacher import NetworkTeacher
from engine.device import Precision
from engine.segmenter import Segmenter
from engine.training.health import Health
from engine.training.run_folder import RunFolder
from engine.training.schedule import Schedule
from engine.training.trainer import Trainer
from engine.training.validation import Validation
from tests.small import SmallNetwork
from utils.batch import Batch

CPU = torch.device("cpu")


def small_trainer(
    slices: SliceFolder,
    folder: Path,
    kd: str | None = None,
    schedule: Schedule | None = None,
    config: dict[str, Any] | None = None,
) -> Trainer:
    """Trains on all but the last four slices, four batches an epoch, and validates on the last case."""
    torch.manual_seed(0)
    network = SmallNetwork(2)
    task: TrainingTask = SupervisedTask(network)
    if kd:
        teacher = SmallNetwork(2, width=6)
        method = build_method(parse_methods([kd]), network.channels, teacher.channels)
        task = Distiller(network, NetworkTeacher(teacher), method)
    segmenter = Segmenter(network, "tiny", "kits", slices.label_map, Frame(64, 0), (-200.0, 300.0))
    dataset = SliceDataset(slices, slices.train[:-4], segmenter.frame, "paper", seed=1)
    precision = Precision("off", CPU)
    last = list(slices.cases)[-1]
    cases: dict[str, list[str]] = {"train": [], "val": [last]}
    return Trainer(
        task,
        segmenter,
        TrainingLoader(dataset, batch_size=3, workers=0),
        Validation(segmenter, slices, [last], 8, precision),
        schedule or Schedule(12, 4, 1e-2),
        precision,
        RunFolder(folder, "kits_tumor_tiny", config or {"lr": 1e-2}, cases),
    )


def judge_behind(monkeypatch: pytest.MonkeyPatch, behind: int) -> None:
    """Let so many steps be under way when one is judged: 0 on a CPU, 1 on a GPU."""

    def start(self: Health, task: TrainingTask, precision: Precision, **_: int) -> None:
        of_health(self, task, precision, behind)

    monkeypatch.setattr(Health, "__init__", start)


of_health = Health.__init__


def stop_after(trainer: Trainer, steps: int) -> None:
    """Ask the trainer to stop, as Ctrl-C does, while the given step runs."""
    count = 0

    def counted(batch: Batch) -> None:
        nonlocal count
        count += 1
        trainer.interruption.requested = count == steps

    spy_on(trainer, counted)


def spy_on(trainer: Trainer, see: Callable[[Batch], object]) -> None:
    """Show every batch before its step."""
    step = trainer.step

    def watched(batch: Batch) -> Any:
        see(batch)
        return step(batch)

    trainer.step = watched  # type: ignore[method-assign]
