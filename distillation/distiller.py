"""Distillation as a task of the training loop: segmentation loss plus what a method makes of the teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from typing import overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from distillation.balance import GradientBalance
from distillation.gradients import GradientShare
from distillation.method import Method
from distillation.segmentation_loss import batch_loss, segmentation_equation
from distillation.task import TrainingTask, with_sum
from distillation.teacher import Teacher
from networks.contract import Features, SegmentationNetwork
from utils.across import gather, own_draws, whole_batch
from utils.batch import UNLABELLED, Batch, most_probable
from utils.errors import UserError

Observer = Callable[[int, Mapping[str, Tensor], nn.Module], None]

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda share: 1.0,
    "warmup": lambda share: min(1.0, 4 * share),
    "decay": lambda share: 1.0 - share,
}
"""The distillation's weight by the share of the training that is done: full after the first quarter, or down to 0."""


class Distiller(TrainingTask):
    """A student learns from the reference masks and from a teacher, which is no part of the task's state."""

    def __init__(
        self,
        student: SegmentationNetwork,
        teacher: Teacher,
        method: Method,
        schedule: str = "constant",
        balance: float = 0.0,
        observe: Observer | None = None,
        answer_in: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """schedule: one of `SCHEDULES`; balance: the share of `GradientBalance`, 0 leaves the terms as they are.

        observe is called in every training step with its number, the terms and the student; in a step the teacher
        answers in the context `answer_in`, such as an autocast that the student is not in. UserError if the two
        networks' classes differ, and if the student is volumetric.
        """
        super().__init__(student)
        if student.block:
            raise UserError("a volumetric network cannot be the student: it is to see single slices; choose another")
        if student.classes != teacher.channels.classes:
            raise UserError(
                f"the teacher has {teacher.channels.classes} classes, the student {student.classes}: "
                "distil for the task that the teacher was trained for"
            )
        self.teacher = teacher
        self.method = method
        self.schedule = schedule
        self.balance = GradientBalance(balance) if balance else None
        self.observe = observe
        self.answer_in = answer_in
        self.gradient_share = GradientShare()
        self.step, self.steps, self.strength = 0, 0, SCHEDULES[schedule](0.0)

    @property
    def needs_stored(self) -> bool:
        return self.teacher.needs_stored

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """{term: weighted scalar, ..., "loss": their sum}; autocast reaches the networks, not the losses."""
        with own_draws(batch):
            with self.answer_in():
                answer = self.teacher.features(batch)
            teacher = in_float32(answer, self.teacher.channels.has_decoder, batch.parts)
            student = in_float32(self.network.features(batch.image), self.network.channels.has_decoder, batch.parts)
        batch = whole_batch(batch)
        with torch.autocast(student.logits.device.type, enabled=False):
            segmentation = batch_loss(student.logits, batch, self.method.focal_detached)
            terms = self.method(student, teacher, with_teachers_masks(batch, teacher.logits))
            if self.balance is not None:
                terms = self.balance(segmentation, terms, [p for p in self.network.parameters() if p.requires_grad])
            if self.strength != 1:
                terms = {term: self.strength * value for term, value in terms.items()}
        if self.training and self.steps:
            self.gradient_share(segmentation, terms, self.network, self.step, self.steps)
        if self.observe is not None and self.training:
            self.observe(self.step, {**segmentation, **terms}, self.network)
        return with_sum({**segmentation, **terms})

    def equation(self) -> str:
        parts = [f"loss = {segmentation_equation(self.method.focal_detached)} + "]
        if self.schedule != "constant":
            parts.append(f"{self.schedule} ")
        if self.balance is not None:
            parts.append(f"balanced to {self.balance.share:g} ")
        method = self.method.equation()
        return "".join([*parts, method if len(parts) == 1 else f"({method})"])

    def before_step(self, step: int, steps: int) -> None:
        self.step, self.steps, self.strength = step, steps, SCHEDULES[self.schedule](step / steps)

    def prepare(self, loader: Iterable[Batch]) -> None:
        self.method.prepare(self.teacher, loader)

    def extra_optimizers(self) -> list[Optimizer]:
        return self.method.extra_optimizers()

    def after_step(self) -> None:
        self.method.after_step()


def with_teachers_masks(batch: Batch, logits: Tensor) -> Batch:
    """The batch with the teacher's most probable classes [B, H, W] where a slice has no mask of its own."""
    predicted = most_probable(logits).to(batch.mask.dtype)
    return batch._replace(mask=torch.where(batch.mask == UNLABELLED, predicted, batch.mask))


def in_float32(features: Features, has_decoder: bool, parts: Sequence[int] = ()) -> Features:
    """The same features in float32; without a decoder its stages stay the encoder's own maps.

    parts: of a batch that several processes share (`utils.across.gather`); then the features of all of it. A stage is
    converted when it is first asked for: most methods take few.
    """

    @torch.enable_grad()  # Whoever asks for it first may not want a gradient, and others may.
    def converted(maps: Tensor) -> Tensor:
        return gather(maps.float(), parts)

    encoder, decoder = ([cache(partial(converted, maps)) for maps in side] for side in features[:2])
    block = None if features.block is None else in_float32(features.block, has_decoder, parts)
    return Features(
        OnDemand(encoder), OnDemand(decoder if has_decoder else encoder[3::-1]), converted(features.logits), block
    )


class OnDemand(Sequence[Tensor]):
    """Maps that are made when they are asked for."""

    def __init__(self, makers: Sequence[Callable[[], Tensor]]) -> None:
        self.makers = makers

    def __len__(self) -> int:
        return len(self.makers)

    @overload
    def __getitem__(self, place: int) -> Tensor: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Tensor]: ...

    def __getitem__(self, place: int | slice) -> Tensor | Sequence[Tensor]:
        return OnDemand(self.makers[place]) if isinstance(place, slice) else self.makers[place]()
