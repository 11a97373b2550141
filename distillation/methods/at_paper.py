"""Attention transfer: the student is active where the teacher is.

S. Zagoruyko, N. Komodakis: Paying More Attention to Attention: Improving the Performance of Convolutional Neural
Networks via Attention Transfer, ICLR 2017 (arXiv 1612.03928).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distillation.distances import mean_activity
from distillation.layerwise import Layerwise
from distillation.stages import Layers
from utils.numbers import NonNegative


class AttentionTransfer(Layerwise):
    """Attention transfer at its authors' settings: activation maps of four stages.

    mean (n(A(s)) - n(A(t)))^2, A(x) = mean over channels of x^2, n = L2 over the pixels; the mean is over batch and
    pixels, with a weight of 1000, as in the authors' code. The student's A is resized to the teacher's. Their ResNets
    compare the ends of the groups of blocks: e2 to e5 here.
    """

    layers: Layers = ("e2", "e3", "e4", "e5")
    weight: NonNegative = 1000.0
    symbol = "AT2"

    def distance(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        size = teacher.shape[2:]
        s, t = (F.normalize(mean_activity(maps, size), dim=1) for maps in (student, teacher))
        return F.mse_loss(s, t)
