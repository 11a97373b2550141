"""ReviewKD: the student's shallow stages, joined with its deeper ones, learn the teacher's shallow stages.

P. Chen, S. Liu, H. Zhao, J. Jia: Distilling Knowledge via Knowledge Review, CVPR 2021 (arXiv 2104.09044).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillation.method import Method, join_terms, weighted
from distillation.stages import Layers
from networks.contract import STAGES, Channels, Features, resize
from utils.batch import Batch
from utils.layers import conv_bn
from utils.numbers import NonNegative, PositiveInt


class ReviewKD(Method):
    """Knowledge review (ReviewKD): fused student stages learn the teacher's by hierarchical context losses.

    Each stage is fused with all deeper ones, the deepest first, and compared with the teacher's of the same name.
    Layers are the outputs of a ResNet's four groups, weight 1 is that of ImageNet (ResNet-34 to ResNet-18), without
    the warm-up of CIFAR; there is no setting for semantic segmentation. `width`: channels of the fused maps, at most
    those of the student's deepest layer. It is 512 in the paper, 128 here: a step with a ResNet-50 as the teacher
    would otherwise cost more than twice a teacher's forward pass and a plain step.
    """

    layers: Layers = ("e2", "e3", "e4", "e5")
    weight: NonNegative = 1.0
    width: PositiveInt = 128

    def __init__(self, student: Channels, teacher: Channels, **options: Any) -> None:
        super().__init__(student, teacher, **options)
        self.layers = tuple(sorted(self.layers, key=STAGES.index, reverse=True))
        deepest = self.layers[0]
        width = min(self.width, student.stage(deepest).channels)
        self.fusions = nn.ModuleDict(
            {
                layer: AttentionBasedFusion(
                    student.stage(layer).channels, width, teacher.stage(layer).channels, fuses=layer != deepest
                )
                for layer in self.layers
            }
        )

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        terms = {}
        fused = None
        for layer in self.layers:
            output, fused = self.fusions[layer](student.stage(layer), fused)
            target = teacher.stage(layer)
            terms[layer] = self.weight * hierarchical_context(resize(output, target.shape[2:]), target)
        return terms

    def equation(self) -> str:
        terms = []
        for count, layer in enumerate(self.layers, start=1):
            fused = ",".join(f"s_{deeper}" for deeper in self.layers[:count])
            terms.append(f"HCL(t_{layer} -> ABF({fused}))")
        return weighted(self.weight, join_terms(terms))


class AttentionBasedFusion(nn.Module):
    """ABF: a stage and what comes from the deeper ones, each with a weight for every pixel, computed from both."""

    def __init__(self, inputs: int, width: int, outputs: int, fuses: bool) -> None:
        """inputs, outputs: channels of student's and teacher's stage; fuses: whether there are deeper ones."""
        super().__init__()
        self.project = conv_bn(inputs, width)
        self.attention = nn.Conv2d(2 * width, 2, kernel_size=1) if fuses else None
        self.output = conv_bn(width, outputs, kernel=3)

    def forward(self, maps: Tensor, deeper: Tensor | None) -> tuple[Tensor, Tensor]:
        """The output [B, outputs, h, w] and the fused map [B, width, h, w], for the next shallower stage."""
        fused = self.project(maps)
        if self.attention is not None and deeper is not None:
            deeper = F.interpolate(deeper, size=fused.shape[2:], mode="nearest")
            weights = self.attention(torch.cat((fused, deeper), dim=1)).sigmoid()
            fused = fused * weights[:, :1] + deeper * weights[:, 1:]
        return self.output(fused), fused


def hierarchical_context(student: Tensor, teacher: Tensor) -> Tensor:
    """HCL: mean squared differences of [B, C, H, W], as they are and averaged to 4 x 4, 2 x 2 and 1 x 1 pixels.

    Their weights are 1, 1/2, 1/4, 1/8, over their sum. Levels that are no smaller than the maps are left out, and
    the next ones take their weights.
    """
    distance, weight, weights = F.mse_loss(student, teacher), 1.0, 1.0
    for size in (4, 2, 1):
        if size < min(teacher.shape[2:]):
            weight /= 2
            weights += weight
            s, t = (F.adaptive_avg_pool2d(maps, size) for maps in (student, teacher))
            distance = distance + weight * F.mse_loss(s, t)
    return distance / weights
