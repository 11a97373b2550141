"""What a distillation method is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torch.optim import Optimizer

from distillation.teacher import Teacher
from networks.contract import Channels, Features
from utils.batch import Batch

Needs = Literal["stages", "logits", "probabilities"]
REASONS: dict[Needs, str] = {
    "stages": "compares stages of the teacher's network, and answers on disk have none",
    "logits": "sees what is added to all logits of a pixel, and answers on disk, as probabilities, do not have it",
}
"""Why a method cannot learn from probabilities alone."""


class Method(nn.Module):
    """Compares the student's features with the teacher's, in float32 with autocast off.

    Its options are annotated class attributes with their defaults, as `weight: NonNegative = 1.0`. What it learns are
    its parameters: trained and checkpointed, never exported with the student.
    """

    volumetric: bool = False
    """Whether it compares maps of blocks of slices, `Features.block`, which only a volumetric teacher has."""
    focal_detached: bool = False
    """Whether the focal loss's factor (1 - p_t)^2 passes no gradient, as in the published code."""

    needs: ClassVar[Needs] = "stages"
    """What it takes from a teacher. "probabilities": its terms stay the same if a number is added to all of the
    teacher's logits at a pixel, another one at each, so that it can learn from answers on disk.
    """

    def __init__(self, student: Channels, teacher: Channels, **options: Any) -> None:
        super().__init__()
        self.student_channels, self.teacher_channels = student, teacher
        for name, value in options.items():
            if not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} has no option {name}")
            setattr(self, name, value)

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        """Terms of the loss, each a scalar with its weight already in it.

        A stage is converted, and gathered from all ranks, when it is first taken: which are, must be the same on each.
        """
        raise NotImplementedError

    def equation(self) -> str:
        """The weighted sum that `forward` returns, as text: s_e1 is the student's stage e1, t_e1 the teacher's."""
        raise NotImplementedError

    def prepare(self, teacher: Teacher, loader: Iterable[Batch]) -> None:
        """Called once, before the first step."""

    def extra_optimizers(self) -> list[Optimizer]:
        """Optimisers of its own, stepped along with the student's."""
        return []

    def after_step(self) -> None:
        """Called after every optimiser step."""


class Combined(Method):
    """The weighted sum of several methods; each term's name begins with its method's."""

    def __init__(self, student: Channels, teacher: Channels, parts: Sequence[tuple[str, float, Method]]) -> None:
        """parts: of each method its name, its weight and the method."""
        super().__init__(student, teacher)
        self.parts = list(parts)
        self.methods = nn.ModuleDict({name: method for name, _, method in parts})
        self.focal_detached = any(method.focal_detached for _, _, method in parts)

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        return {
            f"{name}_{term}": weight * value
            for name, weight, method in self.parts
            for term, value in method(student, teacher, batch).items()
        }

    def equation(self) -> str:
        return " + ".join(weighted(weight, f"[{method.equation()}]") for _, weight, method in self.parts)

    def prepare(self, teacher: Teacher, loader: Iterable[Batch]) -> None:
        for _, _, method in self.parts:
            method.prepare(teacher, loader)

    def extra_optimizers(self) -> list[Optimizer]:
        return [optimizer for _, _, method in self.parts for optimizer in method.extra_optimizers()]

    def after_step(self) -> None:
        for _, _, method in self.parts:
            method.after_step()


def join_terms(terms: Sequence[str]) -> str:
    """The sum of an equation's terms, in brackets where that is needed to put a weight before it."""
    return f"({' + '.join(terms)})" if len(terms) > 1 or terms[0][0].isdigit() else terms[0]


def weighted(weight: float, term: str) -> str:
    """`weight term` in an equation; a weight of 1 is left out."""
    return term if weight == 1 else f"{weight:g} {term}"
