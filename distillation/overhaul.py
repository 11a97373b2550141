"""OFD: what the teacher lets through is copied, what it holds back must only be held back.

B. Heo, J. Kim, S. Yun, H. Park, N. Kwak, J. Y. Choi: A Comprehensive Overhaul of Feature Distillation, ICCV 2019
(arXiv 1904.01866).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from distillation.method import times
from distillation.stages import stage
from distillation.transforms import TransformedLayerwise, conv_bn
from networks.contract import Channels, SegmentationNetwork
from utils.batch import Batch

BATCHES = 10
"""How many batches the margins are measured on."""


class OFD(TransformedLayerwise):
    """Overhaul of feature distillation (OFD): margin ReLU on the teacher, partial distance.

    Partial L2 distance of conv1x1-BN(s) to max(t, margin), summed over channels and pixels (overhaul).

    The distance is 0 where s <= max(t, margin) <= 0, and the squared difference elsewhere; the sum is divided by
    the batch size, and halved for each doubling of the resolution above e5's. Layers (the backbone's four) and
    weight are those of the authors' segmentation on PASCAL VOC, where 1e-5 goes with the sum; there the first epoch
    trains the transforms alone, here they learn with the student.

    A channel's margin is the mean of the teacher's negative responses. The paper derives it from the batch norm
    before the ReLU; for any teacher it is measured in `prepare`, on the first batches. A map taken after a ReLU
    has none: its margin is 0 and the target is the map itself.
    """

    symbol = "OFD"

    def __init__(
        self,
        student: Channels,
        teacher: Channels,
        layers: Sequence[str] = ("e2", "e3", "e4", "e5"),
        weight: float = 1e-5,
    ) -> None:
        super().__init__(student, teacher, layers, weight)
        for layer in self.layers:
            self.register_buffer(f"margin_{layer}", torch.zeros(1, stage(teacher, layer), 1, 1))

    def transform(self, inputs: int, outputs: int) -> nn.Module:
        return conv_bn(inputs, outputs)

    def margin(self, layer: str) -> Tensor:
        """[1, C, 1, 1], none of them positive."""
        return self.get_buffer(f"margin_{layer}")

    @torch.no_grad()
    def prepare(self, teacher: SegmentationNetwork, loader: Iterable[Batch]) -> None:
        sums = {layer: torch.zeros_like(self.margin(layer)) for layer in self.layers}
        counts = {layer: torch.zeros_like(self.margin(layer)) for layer in self.layers}
        for batch in islice(loader, BATCHES):
            features = teacher.features(batch.to(self.margin(self.layers[0]).device).image)
            for layer in self.layers:
                maps = stage(features, layer)
                sums[layer] += maps.clamp(max=0).sum(dim=(0, 2, 3), keepdim=True)
                counts[layer] += (maps < 0).sum(dim=(0, 2, 3), keepdim=True)
        for layer in self.layers:
            self.margin(layer).copy_(sums[layer] / counts[layer].clamp(min=1))

    def compare(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        target = torch.maximum(teacher, self.margin(layer))
        counted = (student > target) | (target > 0)
        distance = ((student - target).square() * counted).sum() / len(teacher)
        return resolution_share(layer) * distance

    def equation(self) -> str:
        terms = [times(resolution_share(layer), f"OFD(t_{layer} -> s_{layer})") for layer in self.layers]
        return times(self.weight, f"({' + '.join(terms)})")


def resolution_share(layer: str) -> float:
    """1 for e5, 1/2 for e4 and d5, 1/4 for e3 and d4, ..., 1/32 for the logits."""
    if layer == "logits":
        return 2.0**-5
    return 2.0 ** (int(layer[1]) - (5 if layer[0] == "e" else 6))
