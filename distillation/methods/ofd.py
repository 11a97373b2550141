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
from distillation.method import weighted
from distillation.stages import Layers
from distillation.teacher import Teacher
from networks.contract import Channels
from utils.batch import Batch
from utils.layers import conv_bn
from utils.numbers import NonNegative

MARGIN_BATCHES = 10
"""How many batches the margins are measured on."""


class OFD(Layerwise):
    """Overhaul of feature distillation (OFD): margin ReLU on the teacher, partial distance.

    Partial L2 distance of conv1x1-BN(s) to max(t, margin), summed over channels and pixels (overhaul).

    The distance is 0 where s <= max(t, margin) <= 0, and the squared difference elsewhere; the sum is divided by
    the batch size, and halved for each doubling of the resolution above that of the teacher's e5. Layers (the
    backbone's four) and weight are those of the authors' segmentation on PASCAL VOC, where 1e-5 goes with the sum;
    there the first epoch trains the transforms alone, here they learn with the student.

    A channel's margin is the mean of the teacher's negative responses. The paper derives it from the batch norm
    before the ReLU; for any teacher it is measured in `prepare`, on the first batches. A map taken after a ReLU
    has none: its margin is 0 and the target is the map itself.
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
        distance = ((student - target).square() * counted).sum() / len(teacher)
        return self.resolution_share(layer) * distance

    def resolution_share(self, layer: str) -> float:
        """1 at the resolution of the teacher's e5, 1/2 at twice that resolution, and so on."""
        return self.teacher_channels.stage(layer).stride / self.teacher_channels.stage("e5").stride

    def equation(self) -> str:
        terms = [weighted(self.resolution_share(layer), f"OFD(t_{layer} -> s_{layer})") for layer in self.layers]
        return weighted(self.weight, f"({' + '.join(terms)})")
