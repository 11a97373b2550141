"""Methods that compare stages of the same name, one distance for each."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from distillation.method import Method, join_terms, weighted
from distillation.stages import Layers
from networks.contract import Channels, Features, resize
from utils.batch import Batch
from utils.numbers import NonNegative


class Layerwise(Method):
    """`weight` times the sum over `layers` of `scale` times `distance`. A subclass gives the defaults of both options.

    Logits are compared as they are: behind a `transform` the student's own would not have to be right.
    """

    layers: Layers
    weight: NonNegative
    symbol: ClassVar[str]
    """The distance's name in the equation."""

    def __init__(self, student: Channels, teacher: Channels, **options: Any) -> None:
        super().__init__(student, teacher, **options)
        self.transforms = nn.ModuleDict()
        for layer in self.layers:
            transform = self.transform(student.stage(layer).channels, teacher.stage(layer).channels)
            if transform is not None and layer != "logits":
                self.transforms[layer] = transform

    def transform(self, inputs: int, outputs: int) -> nn.Module | None:
        """What brings the student's map to the teacher's channels and is trained; the map is resized after it.

        None: `distance` gets the student's map as it is.
        """
        return None

    def scale(self, layer: str) -> float:
        """A stage's share in the sum."""
        return 1.0

    def distance(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        """The unweighted distance of this stage's maps, [B, C, h, w] and [B, C', h', w'], a scalar.

        With a `transform` both are [B, C', h', w'].
        """
        raise NotImplementedError

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        terms = {}
        for layer in self.layers:
            s, t = student.stage(layer), teacher.stage(layer)
            if layer in self.transforms:
                s = resize(self.transforms[layer](s), t.shape[2:])
            terms[layer] = self.weight * self.scale(layer) * self.distance(layer, s, t)
        return terms

    def equation(self) -> str:
        terms = [weighted(self.scale(layer), f"{self.symbol}(t_{layer} -> s_{layer})") for layer in self.layers]
        return weighted(self.weight, join_terms(terms))
