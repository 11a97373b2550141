"""Channel-wise distillation: where each channel is active, as a distribution over the pixels.

C. Shu, Y. Liu, J. Gao, Z. Yan, C. Shen: Channel-wise Knowledge Distillation for Dense Prediction, ICCV 2021
(arXiv 2011.13256).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from distillation.distances import softened_kl
from distillation.transforms import TransformedLayerwise
from networks.contract import Channels


class ChannelWise(TransformedLayerwise):
    """`spatial_kl` of each layer; a 1x1 convolution brings the student to the teacher's channels where they differ."""

    symbol = "CWD"

    def __init__(
        self, student: Channels, teacher: Channels, layers: Sequence[str], weight: float, temperature: float
    ) -> None:
        super().__init__(student, teacher, layers, weight)
        self.temperature = temperature

    def compare(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        return spatial_kl(student, teacher, self.temperature)


def cwd(
    student: Channels,
    teacher: Channels,
    layers: Sequence[str] = ("logits",),
    weight: float = 3.0,
    temperature: float = 4.0,
) -> ChannelWise:
    """Channel-wise distillation of the logits, with the paper's weight 3 and T = 4."""
    return ChannelWise(student, teacher, layers, weight, temperature)


def cwd_features(
    student: Channels,
    teacher: Channels,
    layers: Sequence[str] = ("e5",),
    weight: float = 50.0,
    temperature: float = 4.0,
) -> ChannelWise:
    """Channel-wise distillation of features, with the paper's weight 50 and T = 4.

    The paper takes the last map before the classifier, at 1/8 of the image; here it is the deepest stage, which is
    that map in networks without a decoder.
    """
    return ChannelWise(student, teacher, layers, weight, temperature)


def spatial_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) over the pixels, mean over channels and batch.

    student, teacher: [B, C, H, W] of one shape; equal maps give exactly 0.
    """
    return temperature**2 * softened_kl(student.flatten(2), teacher.flatten(2), temperature, dim=2)
