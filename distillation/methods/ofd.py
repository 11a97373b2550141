"""OFD: the student copies the teacher's positive responses; its negative ones it only has to keep negative.

B. Heo, J. Kim, S. Yun, H. Park, N. Kwak, J. Y. Choi: A Comprehensive Overhaul of Feature Distillation, ICCV 2019
(arXiv 1904.01866).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from distillation.layerwise import Layerwise
from distillation.stages import USUAL_STRIDES, Layers, usual_pixels
from distillation.teacher import Teacher
from networks.contract import Channels
from utils.batch import Batch
from utils.layers import conv_bn
from utils.numbers import NonNegative

MARGIN_BATCHES = 10
"""How many batches the margins are measured on."""
IMAGE_SIDE, OUTPUT_STRIDE = 513, 16
"""Of the images and networks to which the weight belongs."""


class OFD(Layerwise):
    """Overhaul of feature distillation (OFD): margin ReLU on the teacher, partial distance.

    Partial L2 distance of conv1x1-BN(s) to max(t, margin): sum over channels, mean over batch and pixels (overhaul).

    The distance is 0 where s <= max(t, margin) <= 0, and the squared difference elsewhere. The weight is that of the
    authors' segmentation on PASCAL VOC, where it goes with the sum over the pixels: so the mean is multiplied by
    their number there (513 x 513, output stride 16: 129^2, 65^2, 33^2 and 33^2 in e2 to e5), and halved for each
    doubling of the usual resolution above e5's. Their six maps are the backbone's four, which are compared here, the
    ASPP's and the decoder's; where both networks have a decoder, `layers=e2+e3+e4+e5+d5+d2` is the nearest to that.
    There the first epoch trains the transforms alone, here they learn with the student.

    A channel's margin is the mean of the teacher's negative responses. The paper derives it from the batch norm
    before the ReLU; for any teacher it is measured in `prepare`, on the first batches. A map taken after a ReLU
    has none, and that is every encoder stage of RAUNet and of the ResNets here: the margin, the method's idea, never
    acts on them. The target is then the map itself, and of a plain L2 distance only this is left out: a negative
    response of the student where the teacher's is 0.
    """

    layers: Layers = ("e2", "e3", "e4", "e5")
    weight: NonNegative = 1e-5
    symbol = "OFD"

    def __init__(self, student: Channels, teacher: Channels, **options: Any) -> None:
        super().__init__(student, teacher, **options)
        for layer in self.layers:
            self.register_buffer(f"margin_{layer}", torch.zeros(1, teacher.stage(layer).channels, 1, 1))

    def transform(self, inputs: int, outputs: int) -> nn.Module:
        return conv_bn(inputs, outputs)

    def margin(self, layer: str) -> Tensor:
        """[1, C, 1, 1], none of them positive."""
        return self.get_buffer(f"margin_{layer}")

    @torch.no_grad()
    def prepare(self, teacher: Teacher, loader: Iterable[Batch]) -> None:
        sums = {layer: torch.zeros_like(self.margin(layer)) for layer in self.layers}
        counts = {layer: torch.zeros_like(self.margin(layer)) for layer in self.layers}
        for batch in islice(loader, MARGIN_BATCHES):
            features = teacher.features(batch.to(self.margin(self.layers[0]).device))
            for layer in self.layers:
                maps = features.stage(layer)
                sums[layer] += maps.clamp(max=0).sum(dim=(0, 2, 3), keepdim=True)
                counts[layer] += (maps < 0).sum(dim=(0, 2, 3), keepdim=True)
        for layer in self.layers:
            self.margin(layer).copy_(sums[layer] / counts[layer].clamp(min=1))

    def distance(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        target = torch.maximum(teacher, self.margin(layer))
        counted = (student > target) | (target > 0)
        return ((student - target).square() * counted).sum(dim=1).mean()

    def scale(self, layer: str) -> float:
        return usual_pixels(layer, IMAGE_SIDE, coarsest=OUTPUT_STRIDE) * USUAL_STRIDES[layer] / USUAL_STRIDES["e5"]
