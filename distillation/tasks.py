"""What the training loop runs: a batch in, the terms of the loss out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from distillation.method import Method
from distillation.segmentation import segmentation_equation, segmentation_loss
from networks.contract import Features, SegmentationNetwork
from utils.batch import Batch
from utils.errors import UserError


class TrainingTask(nn.Module):
    """What the loop knows: a forward from a batch to {term: weighted scalar, ..., "loss": their sum}.

    `network` is what gets validated and exported; the hooks are those of `Method`.
    """

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError

    def equation(self) -> str:
        """The loss, for people."""
        raise NotImplementedError

    def prepare(self, loader: Iterable[Batch]) -> None:
        """Called once, before the first step."""

    def extra_optimizers(self) -> list[Optimizer]:
        """Stepped beside the main one, which leaves their parameters alone."""
        return []

    def after_step(self) -> None:
        """Called after every step."""


class SupervisedTask(TrainingTask):
    """A network learns from the reference masks alone."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """{term: weighted scalar, ..., "loss": their sum}; autocast reaches the network, not the losses."""
        logits = self.network(batch.image)
        with torch.autocast(logits.device.type, enabled=False):
            terms = segmentation_loss(logits.float(), batch.mask)
        return with_sum(terms)

    def equation(self) -> str:
        return f"loss = {segmentation_equation()}"


class Distiller(TrainingTask):
    """A student learns from the reference masks and from a frozen teacher.

    The teacher moves with the task, but is no part of it: not in its parameters nor in its state dict, always
    in eval mode. UserError if the two networks' classes differ.
    """

    teacher: SegmentationNetwork

    def __init__(self, student: SegmentationNetwork, teacher: SegmentationNetwork, method: Method) -> None:
        super().__init__(student)
        if student.classes != teacher.classes:
            raise UserError(
                f"the teacher has {teacher.classes} classes, the student {student.classes}: "
                "distil for the task that the teacher was trained for"
            )
        self.method = method
        # Past nn.Module's own registration, which would make the teacher's weights this module's.
        self.__dict__["teacher"] = teacher.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.teacher.eval()
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.teacher._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """{term: weighted scalar, ..., "loss": their sum}; autocast reaches the networks, not the losses."""
        with torch.no_grad():
            teacher = in_float32(self.teacher.features(batch.image))
        student = in_float32(self.network.features(batch.image))
        with torch.autocast(student.logits.device.type, enabled=False):
            terms = segmentation_loss(student.logits, batch.mask, detached=self.method.focal_detached)
            terms |= self.method(student, teacher, batch)
        return with_sum(terms)

    def equation(self) -> str:
        return f"loss = {segmentation_equation(self.method.focal_detached)} + {self.method.equation()}"

    def prepare(self, loader: Iterable[Batch]) -> None:
        self.method.prepare(self.teacher, loader)

    def extra_optimizers(self) -> list[Optimizer]:
        return self.method.extra_optimizers()

    def after_step(self) -> None:
        self.method.after_step()


def with_sum(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """The terms and "loss", their sum."""
    return {**terms, "loss": torch.stack(list(terms.values())).sum()}


def in_float32(features: Features) -> Features:
    """The same features in float32; a map that stands at two places still does (and is cast once)."""
    cast: dict[int, Tensor] = {}
    for each in (*features.encoder, *features.decoder, features.logits):
        if id(each) not in cast:
            cast[id(each)] = each.float()
    return Features(
        tuple(cast[id(each)] for each in features.encoder),
        tuple(cast[id(each)] for each in features.decoder),
        cast[id(features.logits)],
    )
