"""Channel-wise distillation: where each channel is active, as a distribution over the pixels.

C. Shu, Y. Liu, J. Gao, Z. Yan, C. Shen: Channel-wise Knowledge Distillation for Dense Prediction, ICCV 2021
(arXiv 2011.13256).
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from distillation.distances import softened_kl
from distillation.layerwise import Layerwise
from distillation.method import Needs
from distillation.stages import Layers, adapter
from utils.numbers import NonNegative, Positive


class ChannelWise(Layerwise):
    """Channel-wise distillation of the logits, with the paper's weight 3 and T = 4.

    `spatial_kl` of each layer; a 1x1 convolution brings the student to the teacher's channels where they differ, as in
    CIRKD's reimplementation (the authors' code has none). The KL is the sum over the pixels of two distributions: of
    the same value at every size of the maps.
    """

    needs: ClassVar[Needs] = "logits"
    layers: Layers = ("logits",)
    weight: NonNegative = 3.0
    temperature: Positive = 4.0
    symbol = "CWD"

    def transform(self, inputs: int, outputs: int) -> nn.Module:
        return adapter(inputs, outputs)

    def distance(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        return spatial_kl(student, teacher, self.temperature)


class ChannelWiseFeatures(ChannelWise):
    """Channel-wise distillation of features, with the paper's weight 50 and T = 4.

    The paper takes the last map before the classifier, at 1/8 of the image; here it is the deepest stage, which is
    that map in networks without a decoder.
    """

    needs = "stages"
    layers: Layers = ("e5",)
    weight: NonNegative = 50.0


def spatial_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) over the pixels, mean over channels and batch.

    student, teacher: [B, C, H, W] of one shape; equal maps give exactly 0.
    """
    return temperature**2 * softened_kl(student.flatten(2), teacher.flatten(2), temperature, dim=2)
