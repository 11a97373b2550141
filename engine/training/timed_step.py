"""A training step to be timed: the same batch over and over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from distillation.distiller import Distiller
from engine.cost import LiveBytes, blank
from engine.device import answering
from engine.options import DistillationOptions, RunOptions
from engine.segmenter import Segmenter
from engine.training.run import make_trainer

BASELINE = "teacher forward + plain step"


class TimedStep:
    """Each call is a step of a run as `make_trainer` makes it, on its first batch."""

    def __init__(self, run: RunOptions, teacher: Segmenter | None = None) -> None:
        # Nothing is written there, and what a run has left in its folder is neither taken up nor in the way.
        nowhere = replace(run.training, workers=0, resume=False, checkpoint_path=run.folder / "timed")
        self.trainer = make_trainer(replace(run, training=nowhere), teacher, with_contents=False)
        batch = next(iter(self.trainer.loader))
        self.trainer.task.train()
        self.trainer.task.prepare([batch])
        # In the middle of the training, for its first and last steps also measure gradients.
        self.trainer.task.before_step(self.trainer.schedule.steps // 2, self.trainer.schedule.steps)
        self.device = self.trainer.precision.device
        self.batch = batch.to(self.device)

    def __call__(self) -> None:
        with self.trainer.repeatably():
            self.trainer.step(self.batch)

    def measure_balance(self) -> None:
        """A step in which the terms' gradients are measured, as happens every `distillation.balance.EVERY` steps."""
        task = self.trainer.task
        assert isinstance(task, Distiller) and task.balance is not None
        task.balance.measure_next()
        self()

    def peak_bytes_on_cpu(self) -> float:
        """The most that tensors made in a step hold at once; 0 on other devices, which report it themselves."""
        if self.device.type != "cpu":
            return 0.0
        with LiveBytes() as live:
            self()
        return float(live.peak)


def steps_beside_baseline(
    run: RunOptions, size: int, teacher: Segmenter, distillations: Mapping[str, DistillationOptions]
) -> dict[str, Callable[[], object]]:
    """Name -> a training step of the student of `run` with this distillation, and first `BASELINE`.

    That is what they cannot do without: the teacher's forward pass over images of `size` x `size`, and the student's
    step alone.
    """
    plain = TimedStep(run)
    images = blank(teacher.network, size, run.training.batch_size)
    precision = plain.trainer.precision
    answer_in = answering(run.training.amp, plain.device, plain.trainer.task.network)

    def baseline() -> None:
        with torch.no_grad(), precision.autocast(), answer_in():
            teacher.network(images)
        plain()

    distilled = {name: TimedStep(replace(run, distillation=each), teacher) for name, each in distillations.items()}
    return {BASELINE: baseline, **distilled}
