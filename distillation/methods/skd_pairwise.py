"""Pair-wise distillation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distillation.affinities import affinity_distance
from distillation.layerwise import Layerwise
from distillation.stages import Layers
from utils.numbers import NonNegative, PositiveInt


class PairWise(Layerwise):
    """Pair-wise distillation: patches that the teacher sees alike look alike to the student.

    Y. Liu, K. Chen, C. Liu, Z. Qin, Z. Luo, J. Wang: Structured Knowledge Distillation for Semantic
    Segmentation, CVPR 2019 (arXiv 1903.04197): weight times the mean over all pairs of patches of
    (a_s - a_t)^2, a the cosine of two patches' vectors; the paper's weight is 10. Patches have
    `granularity` x `granularity` pixels (the paper's best is 2), max-pooled as in the authors' code, or more where
    there would be more than 32 patches in a row: of a map of twice the side twice as many in a row, and of one pixel
    more detail. Unequal widths need no adapter.
    """

    layers: Layers = ("e5",)
    weight: NonNegative = 10.0
    granularity: PositiveInt = 2
    symbol = "PairWise"

    def distance(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        return affinity_distance(student, teacher, F.max_pool2d, self.granularity)
