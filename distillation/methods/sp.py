"""Similarity-preserving distillation."""

from __future__ import annotations

from torch import Tensor

from distillation.affinities import l2_normalise
from distillation.layerwise import Layerwise
from distillation.stages import Layers
from utils.numbers import NonNegative

BATCH_SIZE = 64
"""Images in a batch to which the weight belongs."""


class SP(Layerwise):
    """Similarity-preserving (SP): images that activate the teacher alike activate the student alike.

    F. Tung, G. Mori: Similarity-Preserving Knowledge Distillation, ICCV 2019 (arXiv 1907.09682):
    weight / (64 B) ||G_t - G_s||_F^2, where G = Q Q^T of the flattened maps Q [B, C h w], each row of G at L2 norm 1.

    The paper divides by B^2. As the rows have norm 1, that is 1 / B times their mean distance, and its weight of 3000
    belongs to a batch size: to 64 here, that of Y. Tian et al.'s comparison (arXiv 1910.10699), which has this weight,
    too. Widths and sizes may differ. A single image is always like itself: 0.
    """

    layers: Layers = ("e5",)
    weight: NonNegative = 3000.0
    symbol = "SP"

    def distance(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        return (image_similarity(student) - image_similarity(teacher)).square().sum(dim=1).mean()

    def scale(self, layer: str) -> float:
        return 1 / BATCH_SIZE


def image_similarity(maps: Tensor) -> Tensor:
    """How much every two images' maps agree, [B, C, h, w] -> [B, B], each row at L2 norm 1."""
    flat = maps.flatten(1)
    return l2_normalise(flat @ flat.T, dim=1)
