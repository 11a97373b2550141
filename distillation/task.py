"""What the training loop runs: a batch in, the terms of the loss out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from distillation.balance import GradientBalance
from distillation.method import Method
from distillation.segmentation_loss import segmentation_equation, segmentation_loss
from networks.contract import Features, SegmentationNetwork
from utils.batch import UNLABELLED, Batch, most_probable
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

    def set_progress(self, done: float) -> None:
        """Called before every step with the share of the training that is done, 0 to 1."""


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

    def __init__(
        self,
        student: SegmentationNetwork,
        teacher: SegmentationNetwork,
        method: Method,
        schedule: str = "constant",
        balance: float = 0.0,
    ) -> None:
        """schedule: one of `SCHEDULES`, the method's weight over the training; balance: see `GradientBalance`."""
        super().__init__(student)
        if student.classes != teacher.classes:
            raise UserError(
                f"the teacher has {teacher.classes} classes, the student {student.classes}: "
                "distil for the task that the teacher was trained for"
            )
        self.method = method
        self.schedule, self.strength = schedule, SCHEDULES[schedule](0.0)
        self.balance = GradientBalance(balance) if balance else None
        self.observe: Callable[[Mapping[str, Tensor], nn.Module], None] | None = None
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
            segmentation = segmentation_loss(student.logits, batch.mask, detached=self.method.focal_detached)
            terms = self.method(student, teacher, with_teachers_masks(batch, teacher.logits))
            if self.balance is not None:
                terms = self.balance(segmentation, terms, [p for p in self.network.parameters() if p.requires_grad])
            if self.strength != 1:
                terms = {term: self.strength * value for term, value in terms.items()}
        if self.observe is not None and self.training:
            self.observe({**segmentation, **terms}, self.network)
        return with_sum({**segmentation, **terms})

    def equation(self) -> str:
        parts = [f"loss = {segmentation_equation(self.method.focal_detached)} + "]
        if self.schedule != "constant":
            parts.append(f"{self.schedule} ")
        if self.balance is not None:
            parts.append(f"balanced to {self.balance.share:g} ")
        method = self.method.equation()
        return "".join([*parts, method if len(parts) == 1 else f"({method})"])

    def set_progress(self, done: float) -> None:
        self.strength = SCHEDULES[self.schedule](done)

    def prepare(self, loader: Iterable[Batch]) -> None:
        self.method.prepare(self.teacher, loader)

    def extra_optimizers(self) -> list[Optimizer]:
        return self.method.extra_optimizers()

    def after_step(self) -> None:
        self.method.after_step()


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "warmup": lambda done: min(1.0, 4 * done),
    "decay": lambda done: 1.0 - done,
}
"""A distillation's weight over the training: warm-up takes its first quarter, decay ends at 0."""


def with_teachers_masks(batch: Batch, logits: Tensor) -> Batch:
    """The batch with the teacher's most probable classes [B, H, W] where a slice has no mask of its own."""
    theirs = most_probable(logits).to(batch.mask.dtype)
    return batch._replace(mask=torch.where(batch.mask == UNLABELLED, theirs, batch.mask))


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
