"""Double similarity: where attention moves from layer to layer, and which classes go together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distillation.affinities import l2_normalise
from distillation.distances import mean_activity
from distillation.method import Method, join_terms, weighted
from distillation.stages import Layers
from networks.contract import Channels, Features
from utils.batch import Batch
from utils.errors import UserError
from utils.numbers import NonNegative, Positive

PIXELS = 64 * 128
"""In the maps to which alpha belongs."""


class DSD(Method):
    """Double similarity: residual attention between neighbouring layers, and correlation of the classes.

    Y. Feng, X. Sun, W. Diao, J. Li, X. Gao: Double Similarity Distillation for Semantic Image Segmentation,
    IEEE Transactions on Image Processing 30, 2021 (arXiv 2107.08591), here as

        alpha PSD + beta CSD, alpha = 1000, beta = 10
        PSD = mean over neighbouring `layers` k, k + 1 and the batch of ||R_s - R_t||^2 / 8192,
              R = n(n(A_{k+1}) - n(A_k)), A = mean over channels of x^2, n = L2 norm over the pixels
        CSD = mean over the batch and the pairs of classes of (M_s - M_t)^2,
              M_ij = cosine over the pixels of q_i and q_j, q = softmax over classes of logits / temperature

    All A of one pair are resized to the smaller of the teacher's two maps. It learns nothing of its own. Only
    neighbours are paired; the public reimplementation in CIRKD's code takes every two layers. That code has the same
    alpha and beta, with the mean over the pixels in PSD. As R has norm 1, alpha belongs to one number of pixels: here
    to 8192, the 64 x 128 of that code's maps (512 x 1024 at stride 8).
    """

    layers: Layers = ("e2", "e3", "e4", "e5")
    alpha: NonNegative = 1000.0
    beta: NonNegative = 10.0
    temperature: Positive = 4.0

    def __init__(self, student: Channels, teacher: Channels, **options: Any) -> None:
        """UserError unless there are two `layers` to compare."""
        super().__init__(student, teacher, **options)
        if len(self.layers) < 2:
            raise UserError(f"dsd,layers={self.layers[0]}: give at least two stages, for it compares neighbours")

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        gaps = [self._attention_gap(student, teacher, *neighbours) for neighbours in pairwise(self.layers)]
        s, t = (class_correlation(features.logits, self.temperature) for features in (student, teacher))
        return {"pixel": self.alpha * torch.stack(gaps).mean(), "category": self.beta * F.mse_loss(s, t)}

    def _attention_gap(self, student: Features, teacher: Features, lower: str, upper: str) -> Tensor:
        size = min((teacher.stage(layer).shape[2:] for layer in (lower, upper)), key=lambda shape: shape.numel())
        s, t = (
            residual_attention(features.stage(lower), features.stage(upper), size) for features in (student, teacher)
        )
        return (s - t).square().sum(dim=1).mean() / PIXELS

    def equation(self) -> str:
        pixel = [f"PSD(t_{a},t_{b} -> s_{a},s_{b})" for a, b in pairwise(self.layers)]
        mean = join_terms(pixel) + (f" / {len(pixel)}" if len(pixel) > 1 else "")
        return f"{weighted(self.alpha, mean)} + {weighted(self.beta, 'CSD(t_logits -> s_logits)')}"


def residual_attention(lower: Tensor, upper: Tensor, size: Sequence[int]) -> Tensor:
    """How attention moves from one map to the next: two of [B, C, h, w] with any C, h, w -> [B, H * W] of norm 1."""
    first, second = (l2_normalise(mean_activity(maps, size), dim=1) for maps in (lower, upper))
    return l2_normalise(second - first, dim=1)


def class_correlation(logits: Tensor, temperature: float) -> Tensor:
    """The cosine of every two classes' probability maps: [B, C, H, W] -> [B, C, C]."""
    probabilities = l2_normalise((logits / temperature).softmax(dim=1).flatten(2), dim=2)
    return probabilities @ probabilities.transpose(1, 2)
