"""A training step of a network alone on noise, for timers that need no data set and no run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from distillation.task import SupervisedTask
from engine.training.trainer import make_optimizers
from networks.contract import SegmentationNetwork
from utils.batch import Batch


def noise(batch_size: int, size: int) -> Tensor:
    """[B, 1, size, size] in [-1, 1]."""
    return torch.rand(batch_size, 1, size, size) * 2 - 1


def step_on(
    image: Tensor, network: SegmentationNetwork, autocast: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Callable[[], None]:
    """A step of two classes, the brighter half and the darker."""
    task = SupervisedTask(network).train().to(memory_format=torch.channels_last)
    (optimizer,) = make_optimizers(task, 1e-3)
    batch = Batch(image, (image[:, 0] > 0).to(torch.uint8), ["noise"] * len(image))

    def step() -> None:
        optimizer.zero_grad()
        with autocast():
            loss = task(batch)["loss"]
        loss.backward()
        optimizer.step()

    return step
