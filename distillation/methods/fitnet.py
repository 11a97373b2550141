"""FitNet: the teacher's middle stage is a hint for the student's.

A. Romero, N. Ballas, S. Ebrahimi Kahou, A. Chassang, C. Gatta, Y. Bengio: FitNets: Hints for Thin Deep Nets,
ICLR 2015 (arXiv 1412.6550).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from distillation.layerwise import Layerwise
from distillation.stages import Layers, regressor
from utils.numbers import NonNegative


class FitNet(Layerwise):
    """FitNet's hints: a middle stage of the student regresses the teacher's.

    mean (r(s) - t)^2, with r a trained 1x1 convolution, the regressor (hints); logits are compared without it.

    The mean is over batch, channels and pixels, in place of the paper's 1/2 and sum. The paper's hint comes from
    the middle of the teacher: e3, the middle of e1..e5. It trains on the hint first and on the labels after that;
    here both are learned together, with a weight of 1.
    """

    layers: Layers = ("e3",)
    weight: NonNegative = 1.0
    symbol = "MSE"

    def transform(self, inputs: int, outputs: int) -> nn.Module:
        return regressor(inputs, outputs)

    def distance(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        return F.mse_loss(student, teacher)
