"""FitNet: the teacher's middle stage is a hint for the student's.

A. Romero, N. Ballas, S. Ebrahimi Kahou, A. Chassang, C. Gatta, Y. Bengio: FitNets: Hints for Thin Deep Nets,
ICLR 2015 (arXiv 1412.6550).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from distillation.transforms import TransformedLayerwise
from networks.contract import Channels


class FitNet(TransformedLayerwise):
    """FitNet's hints: a middle stage of the student regresses the teacher's.

    mean (r(s) - t)^2, with r a trained 1x1 convolution where the channel counts differ (hints).

    The mean is over batch, channels and pixels, in place of the paper's 1/2 and sum. The paper's hint comes from
    the middle of the teacher: e3, the middle of e1..e5. It trains on the hint first and on the labels after that;
    here both are learned together, with a weight of 1.
    """

    symbol = "MSE"

    def __init__(
        self, student: Channels, teacher: Channels, layers: Sequence[str] = ("e3",), weight: float = 1.0
    ) -> None:
        super().__init__(student, teacher, layers, weight)

    def compare(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        return F.mse_loss(student, teacher)
