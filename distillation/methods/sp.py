"""Similarity-preserving distillation."""

from __future__ import annotations

from torch import Tensor

from distillation.affinities import l2_normalise
from distillation.layerwise import Layerwise
from distillation.stages import Layers
from utils.numbers import NonNegative


class SP(Layerwise):
    """Similarity-preserving (SP): images that activate the teacher alike activate the student alike.

    F. Tung, G. Mori: Similarity-Preserving Knowledge Distillation, ICCV 2019 (arXiv 1907.09682):
    weight / B^2 ||G_t - G_s||_F^2, where G = Q Q^T of the flattened maps Q [B, C h w], each row of G at L2 norm 1;
    the paper's weight is 3000. Widths and sizes may differ. A single image is always like itself: 0.
    """

    layers: Layers = ("e5",)
    weight: NonNegative = 3000.0
    symbol = "SP"

    def distance(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        return (image_similarity(student) - image_similarity(teacher)).square().mean()


def image_similarity(maps: Tensor) -> Tensor:
    """How much every two images' maps agree, [B, C, h, w] -> [B, B], each row at L2 norm 1."""
    flat = maps.flatten(1)
    return l2_normalise(flat @ flat.T, dim=1)
