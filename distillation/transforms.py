"""Methods that send the student's map through a trained transform before they compare it with the teacher's."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from distillation.layerwise import Layerwise
from distillation.stages import adapter, stage
from networks.contract import Channels, resize
from utils.layers import BatchNorm


class TransformedLayerwise(Layerwise):
    """A `Layerwise` that brings the student's map to the teacher's channels, then to its size."""

    def __init__(self, student: Channels, teacher: Channels, layers: Sequence[str], weight: float) -> None:
        super().__init__(student, teacher, layers, weight)
        self.transforms = nn.ModuleDict(
            {layer: self.transform(stage(student, layer), stage(teacher, layer)) for layer in self.layers}
        )

    def transform(self, inputs: int, outputs: int) -> nn.Module:
        """What is trained, from the student's channels to the teacher's: a 1x1 convolution where they differ."""
        return adapter(inputs, outputs)

    def compare(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        """The unweighted distance of the transformed map and the teacher's, both [B, C, H, W], a scalar."""
        raise NotImplementedError

    def distance(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        return self.compare(layer, resize(self.transforms[layer](student), teacher.shape[2:]), teacher)


def conv_bn(inputs: int, outputs: int, kernel: int = 1) -> nn.Sequential:
    """Convolution that keeps the size and batch norm, for maps of either sign; `kernel` is odd."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        BatchNorm(outputs),
    )
