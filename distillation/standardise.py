"""Values at mean 0 and norm 1, with bounded gradients."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from distillation.affinities import l2_normalise

SMALLEST_DEVIATION = 1e-3
"""The gradient of standardised values grows as 1 / standard deviation. Between the classes of a pixel that is exactly 0
where two logits are equal, and networks in half precision have such pixels in nearly every batch, along the border
between two classes. One gradient in the thousands keeps Adam's steps tiny for hundreds of steps after. So the gradient
is bounded; it also silences DIST's intra-class term for a student that is sure of one class everywhere."""


def standardise(values: Tensor) -> Tensor:
    """Values along dimension 1 at mean 0 and norm 1, or all 0 where they are equal.

    Where the standard deviation is below `SMALLEST_DEVIATION` the gradient is as if it were that, and 0 where it is 0.
    """
    centred = values - values.mean(dim=1, keepdim=True)
    norm = torch.linalg.vector_norm(centred.detach(), dim=1, keepdim=True)
    share: Tensor = (norm / (SMALLEST_DEVIATION * math.sqrt(centred.shape[1]))).clamp(max=1)
    direction = l2_normalise(centred, dim=1)
    bounded: Tensor = share * direction + ((1 - share) * direction).detach()
    return bounded


def no_gradient(classes: int) -> str:
    """What an equation says after a term that has no gradient with two classes."""
    return " (no gradient: two classes)" if classes == 2 else ""
