"""Methods that compare stages of the same name, one distance for each."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from distillation.method import Method, added, times
from distillation.stages import check_layers, stage
from networks.contract import Channels, Features
from utils.batch import Batch


class Layerwise(Method):
    """`weight` times the sum over `layers` of `distance`. A subclass names it and says what it is."""

    symbol: str
    """The distance's name in the equation."""

    def __init__(self, student: Channels, teacher: Channels, layers: Sequence[str], weight: float) -> None:
        """layers: names of stages, as in `distillation.stages.STAGES`; UserError for any other."""
        super().__init__()
        self.layers = check_layers(layers)
        self.weight = weight

    def distance(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        """The unweighted distance of this stage's maps, [B, C, h, w] and [B, C', h', w'], a scalar."""
        raise NotImplementedError

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        return {
            layer: self.weight * self.distance(layer, stage(student, layer), stage(teacher, layer))
            for layer in self.layers
        }

    def equation(self) -> str:
        terms = [f"{self.symbol}(t_{layer} -> s_{layer})" for layer in self.layers]
        return times(self.weight, added(terms))
