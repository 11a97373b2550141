"""The feature contract: what every network gives to prediction and to distillation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ENCODER = ("e1", "e2", "e3", "e4", "e5")
DECODER = ("d5", "d4", "d3", "d2")
STAGES = (*ENCODER, *DECODER, "logits")
STRIDES = (2, 4, 8, 16, 32)
"""The usual strides of e1..e5."""


class Stage(NamedTuple):
    """stride: pixels of the image to one of the map."""

    name: str
    channels: int
    stride: int


class Features(NamedTuple):
    """encoder: e1..e5, fine to coarse; decoder: d5..d2, coarse to fine; logits: [B, C, H, W].

    Every stage is [B, channels, h, w] at its own resolution; of a volumetric network all are [B, channels, d, h, w].
    block: where a volumetric network answers for the slice in the middle of each block, the maps of the whole block.
    """

    encoder: Sequence[Tensor]
    decoder: Sequence[Tensor]
    logits: Tensor
    block: Features | None = None

    def stage(self, name: str) -> Tensor:
        """The map of one of `STAGES`."""
        if name == "logits":
            return self.logits
        return self.encoder[ENCODER.index(name)] if name in ENCODER else self.decoder[DECODER.index(name)]


@dataclass(frozen=True)
class Channels:
    """Channel counts and strides of a network's stages, in the order of `Features`, known before the first batch.

    decoder: empty where there is none, and e4..e1 stand for d5..d2. decoder_strides: by default those of e4..e1.
    encoder: empty where logits are all there is, as of answers on disk. block: slices of a volumetric network's input,
    along which the strides hold too; 0: it sees single slices.
    """

    encoder: tuple[int, ...]
    decoder: tuple[int, ...]
    classes: int
    encoder_strides: tuple[int, ...] = STRIDES
    decoder_strides: tuple[int, ...] = ()
    block: int = 0

    @property
    def has_decoder(self) -> bool:
        return bool(self.decoder)

    @property
    def has_stages(self) -> bool:
        """Whether there is anything but the logits."""
        return bool(self.encoder)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All of `STAGES`, in that order, or the logits alone; these have the image's resolution."""
        if not self.has_stages:
            return (Stage("logits", self.classes, 1),)
        channels = (*self.encoder, *(self.decoder or self.encoder[3::-1]), self.classes)
        strides = (*self.encoder_strides, *(self.decoder_strides or self.encoder_strides[3::-1]), 1)
        return tuple(Stage(*values) for values in zip(STAGES, channels, strides, strict=True))

    def stage(self, name: str) -> Stage:
        """One of `STAGES`."""
        stages = self.stages
        return stages[[stage.name for stage in stages].index(name)]


class SegmentationNetwork(nn.Module):
    """Base of all networks: a subclass implements `features` and sets what `Channels` needs."""

    encoder_channels: tuple[int, ...]
    decoder_channels: tuple[int, ...] = ()
    encoder_strides: tuple[int, ...] = STRIDES
    decoder_strides: tuple[int, ...] = ()
    block: int = 0
    """Of `Channels`."""
    slower_in_bf16 = False
    """Whether a CPU with instructions for bf16 trains it faster without, as `scripts/bench_amp.py` measures."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    @property
    def channels(self) -> Channels:
        return Channels(
            self.encoder_channels,
            self.decoder_channels,
            self.classes,
            self.encoder_strides,
            self.decoder_strides,
            self.block,
        )

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout of weights and maps that is fastest on GPUs and no slower elsewhere."""
        return torch.channels_last_3d if self.block else torch.channels_last

    def features(self, image: Tensor) -> Features:
        """image: [B, 1, H, W] of any size; the logits have the image's size."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:
        """Logits [B, C, H, W] for an image [B, 1, H, W]."""
        return self.features(image).logits


class VolumetricNetwork(SegmentationNetwork):
    """Base of networks that see blocks of contiguous slices: [B, 1, D, H, W] -> logits [B, C, D, H, W].

    `block` is the D that it is trained and used with, which no weight depends on.
    """

    block = 16


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Zero-pad [..., H, W] at the bottom and right until both sizes divide by `multiple`."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % multiple, 0, -height % multiple))


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resize of [B, C, h, w] to (H, W), without antialiasing; the maps themselves if they have that size."""
    if maps.shape[2:] == torch.Size(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
