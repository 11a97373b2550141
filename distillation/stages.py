"""Stages of a network by name, and the adapters between stages of unequal width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from torch import Tensor, nn

from distillation.distances import concatenate
from networks.contract import Channels, Features
from utils.errors import UserError

STAGES = ("e1", "e2", "e3", "e4", "e5", "d5", "d4", "d3", "d2", "logits")


@overload
def stage(of: Features, name: str) -> Tensor: ...
@overload
def stage(of: Channels, name: str) -> int: ...
def stage(of: Features | Channels, name: str) -> Tensor | int:
    """The map, or the channel count, of one of `STAGES`."""
    if name == "logits":
        return of[2]
    level = int(name[1])
    return of.encoder[level - 1] if name[0] == "e" else of.decoder[5 - level]


def check_layers(layers: Sequence[str]) -> tuple[str, ...]:
    """The same names; UserError if one is no stage, is given twice, or none is given."""
    for name in layers:
        if name not in STAGES:
            raise UserError(f"there is no stage {name!r}: choose from {', '.join(STAGES)}")
    if not layers or len(set(layers)) < len(layers):
        raise UserError(f"layers={'+'.join(layers)}: name at least one stage, and each only once")
    return tuple(layers)


def gather(features: Features, stages: Sequence[str]) -> Tensor:
    """The map of these stages; the channels of several side by side."""
    return concatenate([stage(features, name) for name in stages])


def width(channels: Channels, stages: Sequence[str]) -> int:
    """How many channels these stages have together."""
    return sum(stage(channels, name) for name in stages)


def adapter(inputs: int, outputs: int) -> nn.Module:
    """A 1x1 convolution, or nothing where the counts are equal."""
    return nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, kernel_size=1)
