"""MGD: from a few of its pixels, the student's map must generate all of the teacher's.

Z. Yang, Z. Li, M. Shao, D. Shi, Z. Yuan, C. Yuan: Masked Generative Distillation, ECCV 2022 (arXiv 2205.01529).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillation.layerwise import Layerwise
from distillation.stages import Layers, adapter, usual_pixels
from networks.contract import Channels
from utils.numbers import NonNegative, Share

IMAGE_SIDE, OUTPUT_STRIDE = 512, 8
"""Of the images and networks to which the weight belongs."""


class MGD(Layerwise):
    """Masked generative distillation (MGD): from a masked map the student generates the teacher's.

    Sum over channels of (g(M s) - t)^2, mean over batch and pixels, times P (masked generation).

    M is 0 at random pixels, each with probability `masked`, and 1 elsewhere; g is conv3x3-ReLU-conv3x3. The
    student's channels are aligned by a 1x1 convolution where they differ, as in the authors' code: g can reorder
    equal ones. Layer (the last of the backbone), weight and `masked` are those of the paper's segmentation, where the
    weight goes with the sum over the pixels: P is their number there, 64^2 in e5 (512 x 512, output stride 8).
    Because of the mask a copy of the teacher is still taught. With a teacher of 2048 channels (ResNet-50) g has 75
    million weights, and a step can cost several times a teacher's forward pass and a plain step; e4 is cheaper.
    """

    layers: Layers = ("e5",)
    weight: NonNegative = 2e-5
    masked: Share = 0.75
    symbol = "MGD"

    def __init__(self, student: Channels, teacher: Channels, **options: Any) -> None:
        super().__init__(student, teacher, **options)
        self.generators = nn.ModuleDict({layer: generator(teacher.stage(layer).channels) for layer in self.layers})

    def transform(self, inputs: int, outputs: int) -> nn.Module:
        return adapter(inputs, outputs)

    def distance(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        kept = torch.rand_like(teacher[:, :1]) >= self.masked
        return teacher.shape[1] * F.mse_loss(self.generators[layer](student * kept), teacher)

    def scale(self, layer: str) -> float:
        return usual_pixels(layer, IMAGE_SIDE, coarsest=OUTPUT_STRIDE)


def generator(channels: int) -> nn.Sequential:
    """The paper's generation block, at the teacher's width."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel_size=3, padding=1),
    )
