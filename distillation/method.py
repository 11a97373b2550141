"""What a distillation method is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn
from torch.optim import Optimizer

from networks.contract import Features, SegmentationNetwork
from utils.batch import Batch


class Method(nn.Module):
    """Compares the student's features with the teacher's, in float32 with autocast off.

    What a method learns are its parameters: trained and checkpointed, never exported with the student.
    """

    focal_detached: bool = False

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        """Terms of the loss, each a scalar with its weight already in it."""
        raise NotImplementedError

    def equation(self) -> str:
        """The weighted sum that `forward` returns, for people: s_e1 is the student's, t_e1 the teacher's."""
        raise NotImplementedError

    def definition(self) -> str:
        """The equation, and every plain value that this method and its parts hold: tells two versions apart."""
        held = [
            f"{name}={value}"
            for part in self.modules()
            if isinstance(part, Method)
            for name, value in sorted(vars(part).items())
            if isinstance(value, bool | int | float | str) and name != "training"
        ]
        return "; ".join([self.equation(), *held])

    def prepare(self, teacher: SegmentationNetwork, loader: Iterable[Batch]) -> None:
        """Called once, before the first step."""

    def extra_optimizers(self) -> list[Optimizer]:
        """Optimisers of its own, stepped beside the student's."""
        return []

    def after_step(self) -> None:
        """Called after every optimiser step."""


class Combined(Method):
    """The weighted sum of several methods; each term's name begins with its method's."""

    def __init__(self, methods: Sequence[tuple[str, float, Method]]) -> None:
        super().__init__()
        self.parts = list(methods)
        self.methods = nn.ModuleDict({name: method for name, _, method in methods})
        self.focal_detached = any(method.focal_detached for _, _, method in methods)

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        return {
            f"{name}_{term}": weight * value
            for name, weight, method in self.parts
            for term, value in method(student, teacher, batch).items()
        }

    def equation(self) -> str:
        return " + ".join(times(weight, f"[{method.equation()}]") for _, weight, method in self.parts)

    def prepare(self, teacher: SegmentationNetwork, loader: Iterable[Batch]) -> None:
        for _, _, method in self.parts:
            method.prepare(teacher, loader)

    def extra_optimizers(self) -> list[Optimizer]:
        return [optimizer for _, _, method in self.parts for optimizer in method.extra_optimizers()]

    def after_step(self) -> None:
        for _, _, method in self.parts:
            method.after_step()


def added(terms: Sequence[str]) -> str:
    """The sum of terms in an equation, in brackets where a weight before it would not read as one of all of it."""
    return f"({' + '.join(terms)})" if len(terms) > 1 or terms[0][0].isdigit() else terms[0]


def times(weight: float, term: str) -> str:
    """`weight term` in an equation; a weight of 1 goes without saying."""
    return term if weight == 1 else f"{weight:g} {term}"
