"""Stages as options of methods, and the adapters between stages of unequal width."""

from __future__ import annotations

import argparse
import math
from typing import Annotated

from torch import nn

from networks.contract import STAGES, STRIDES


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

USUAL_STRIDES = dict(zip(STAGES, (*STRIDES, *STRIDES[3::-1], 1), strict=True))
"""By name, whatever the strides of the networks at hand."""


def usual_pixels(layer: str, side: int, coarsest: int = 32) -> int:
    """How many pixels a stage has of a square image, at its usual stride or at `coarsest`.

    A weight of a sum over pixels (or of a mean of normalised maps) belongs to one number of pixels, that of its
    paper's experiments: with this number it means the same at every size.
    """
    return math.ceil(side / min(USUAL_STRIDES[layer], coarsest)) ** 2


def regressor(inputs: int, outputs: int) -> nn.Module:
    """A 1x1 convolution, also where the channel counts are equal: the order of channels means nothing."""
    return nn.Conv2d(inputs, outputs, kernel_size=1)


def adapter(inputs: int, outputs: int) -> nn.Module:
    """A 1x1 convolution, or nothing where the channel counts are equal."""
    return nn.Identity() if inputs == outputs else regressor(inputs, outputs)
