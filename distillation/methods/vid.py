"""VID: the student keeps as much information about the teacher's maps as it can.

S. Ahn, S. X. Hu, A. Damianou, N. D. Lawrence, Z. Dai: Variational Information Distillation for Knowledge Transfer,
CVPR 2019 (arXiv 1904.05835).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillation.layerwise import Layerwise
from distillation.stages import Layers
from networks.contract import Channels
from utils.numbers import NonNegative

START_VARIANCE = 5.0
SMALLEST_VARIANCE = 1e-5


class VID(Layerwise):
    """Variational information distillation (VID): the student's maps must predict the teacher's.

    Mean of ((mu(s) - t)^2 / v + log v) / 2: how badly a Gaussian, given s, predicts t (mutual information).

    The negative log-likelihood without its constant, over batch, channels and pixels. mu: three 1x1 convolutions at
    the teacher's width with ReLU between them; v = softplus(a) + 1e-5, one trained variance per channel of the
    teacher, 5 at first. Where mu(s) = t the term is log(v) / 2, 0.80 at first, and falls with v to log(1e-5) / 2
    = -5.76, below which no term can be.

    Layers are the ends of a ResNet's four groups; weight 1 is that of Y. Tian et al.'s comparison (arXiv 1910.10699).
    """

    layers: Layers = ("e2", "e3", "e4", "e5")
    weight: NonNegative = 1.0
    symbol = "VID"

    def __init__(self, student: Channels, teacher: Channels, **options: Any) -> None:
        super().__init__(student, teacher, **options)
        start = math.log(math.expm1(START_VARIANCE - SMALLEST_VARIANCE))
        self.spreads = nn.ParameterDict(
            {layer: torch.full((teacher.stage(layer).channels, 1, 1), start) for layer in self.layers}
        )

    def transform(self, inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel_size=1),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, kernel_size=1),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, kernel_size=1),
        )

    def variance(self, layer: str) -> Tensor:
        """[C, 1, 1], from 1e-5 up."""
        return F.softplus(self.spreads[layer]) + SMALLEST_VARIANCE

    def distance(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        variance = self.variance(layer)
        return ((student - teacher).square() / variance + variance.log()).mean() / 2
