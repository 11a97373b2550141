"""Batches of slices, as loaders make them and losses take them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Every pixel of the mask of a slice without a mask.
UNLABELLED = 255


class Batch(NamedTuple):
    """image: float32 [B, 1, H, W] in [-1, 1]; mask: uint8 [B, H, W], class indices; cases: B names.

    Where a slice has no mask, every pixel of `mask` is `UNLABELLED`.
    """

    image: Tensor
    mask: Tensor
    cases: list[str]

    def to(self, device: torch.device) -> Batch:
        """A copy on another device; from pinned memory it does not block."""
        return Batch(self.image.to(device, non_blocking=True), self.mask.to(device, non_blocking=True), self.cases)


def most_probable(scores: Tensor) -> Tensor:
    """The class with the highest probability or logit, [B, C, H, W] -> int64 [B, H, W]; the first one of a tie."""
    # On a CPU argmax takes ten times as long where the classes lie far apart in memory.
    return scores.max(dim=1).indices


def has_mask(mask: Tensor) -> Tensor:
    """bool [B] for masks [B, H, W]: False where a slice is `UNLABELLED`."""
    # One pixel decides, as a mask is unlabelled in all its pixels or in none.
    return mask[:, 0, 0] != UNLABELLED
