"""Stages as options of methods, and the adapters between stages of unequal width."""

from __future__ import annotations

import argparse
from typing import Annotated

from torch import nn

from networks.contract import STAGES


def read_layer(text: str) -> str:
    """An argparse type: one of `STAGES`."""
    if text not in STAGES:
        raise argparse.ArgumentTypeError(f"there is no stage {text!r}: choose from {', '.join(STAGES)}")
    return text


def read_layers(text: str) -> tuple[str, ...]:
    """An argparse type: different `STAGES`, joined by `+`."""
    layers = tuple(read_layer(name) for name in text.split("+"))
    if len(set(layers)) < len(layers):
        raise argparse.ArgumentTypeError("name each stage only once")
    return layers


Layer = Annotated[str, read_layer]
Layers = Annotated[tuple[str, ...], read_layers]


def adapter(inputs: int, outputs: int) -> nn.Module:
    """A 1x1 convolution, or nothing where the channel counts are equal."""
    return nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, kernel_size=1)
