"""What the loaders give and the losses take."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

UNLABELLED = 255
"""Every pixel of the mask of a slice that has none."""


class Batch(NamedTuple):
    """image: float32 [B, 1, H, W] in [-1, 1]; mask: uint8 [B, H, W], the task's class indices; cases: B names.

    A slice without a mask is `UNLABELLED` all over.
    """

    image: Tensor
    mask: Tensor
    cases: list[str]

    def to(self, device: torch.device) -> Batch:
        """The batch on another device; the copy does not block where the memory is pinned."""
        return Batch(self.image.to(device, non_blocking=True), self.mask.to(device, non_blocking=True), self.cases)


def most_probable(scores: Tensor) -> Tensor:
    """The index of the highest class, int64 [B, H, W], of probabilities or logits [B, C, H, W]; a tie's first."""
    # On a CPU argmax takes ten times as long where the classes lie far apart in memory.
    return scores.max(dim=1).indices


def has_mask(mask: Tensor) -> Tensor:
    """bool [B] of masks [B, H, W]: False where a slice is `UNLABELLED`, all over or not at all."""
    return mask[:, 0, 0] != UNLABELLED
