"""What the loaders give and the losses take."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """image: float32 [B, 1, H, W] in [-1, 1]; mask: uint8 [B, H, W], the task's class indices; cases: B names."""

    image: Tensor
    mask: Tensor
    cases: list[str]

    def to(self, device: torch.device) -> Batch:
        """The batch on another device; the copy does not block where the memory is pinned."""
        return Batch(self.image.to(device, non_blocking=True), self.mask.to(device, non_blocking=True), self.cases)
