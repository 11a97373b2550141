"""Attention transfer: the student is active where the teacher is.

S. Zagoruyko, N. Komodakis: Paying More Attention to Attention: Improving the Performance of Convolutional Neural
Networks via Attention Transfer, ICLR 2017 (arXiv 1612.03928).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distillation.distances import mean_activity
from distillation.layerwise import Layerwise
from distillation.stages import Layers, usual_pixels
from utils.numbers import NonNegative

IMAGE_SIDE = 224
"""Pixels along a side of the images to which the weight belongs."""


class AttentionTransfer(Layerwise):
    """Attention transfer at its authors' settings: activation maps of four stages.

    || n(A(s)) - n(A(t)) ||^2 / P, A(x) = mean over channels of x^2, n = L2 over the pixels; mean over the batch. The
    student's A is resized to the teacher's. The authors' ResNets compare the ends of the groups of blocks: e2 to e5.

    The weight is the 1000 of the authors' code, which takes the mean over the pixels. As n(A) has norm 1, it belongs to
    one number of pixels: P is that of their experiments on ImageNet (224 x 224), 56^2, 28^2, 14^2 and 7^2 in e2 to e5.
    """

    layers: Layers = ("e2", "e3", "e4", "e5")
    weight: NonNegative = 1000.0
    symbol = "AT2"

    def distance(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        size = teacher.shape[2:]
        s, t = (F.normalize(mean_activity(maps, size), dim=1) for maps in (student, teacher))
        return (s - t).square().sum(dim=1).mean()

    def scale(self, layer: str) -> float:
        return 1 / usual_pixels(layer, IMAGE_SIDE)
