"""The feature contract: what every network gives to prediction and to distillation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Features(NamedTuple):
    """encoder: e1..e5, fine to coarse; decoder: d5..d2, coarse to fine; logits: [B, C, H, W].

    Every stage is [B, channels, h, w] at its own resolution.
    """

    encoder: tuple[Tensor, ...]
    decoder: tuple[Tensor, ...]
    logits: Tensor


class Channels(NamedTuple):
    """Channel counts of `Features`, in the same order, and the number of classes."""

    encoder: tuple[int, ...]
    decoder: tuple[int, ...]
    classes: int


class SegmentationNetwork(nn.Module):
    """Base of all networks. A subclass sets the channel lists and implements `features`."""

    encoder_channels: tuple[int, ...]
    decoder_channels: tuple[int, ...]

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    @property
    def channels(self) -> Channels:
        return Channels(tuple(self.encoder_channels), tuple(self.decoder_channels), self.classes)

    def features(self, image: Tensor) -> Features:
        """image: [B, 1, H, W] of any size; the logits have the image's size."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:
        """Logits [B, C, H, W] for an image [B, 1, H, W]."""
        return self.features(image).logits


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Zero-pad [..., H, W] at the bottom and right until both sizes divide by `multiple`."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % multiple, 0, -height % multiple))


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resize of [B, C, h, w] to (H, W), without antialiasing; the maps themselves if they have that size."""
    if maps.shape[2:] == torch.Size(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
