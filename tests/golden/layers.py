"""Layers in NumPy and float64, for golden values, and how to make a trained layer the identity."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from distillation.stages import stage
from networks.contract import Channels, Features
from tests.golden.features import STUDENT, STUDENT_SIZES, TEACHER, TEACHER_SIZES

Array = NDArray[np.float64]

STUDENTS = {"unequal": (STUDENT, STUDENT_SIZES), "equal": (TEACHER, TEACHER_SIZES)}
"""Channels and sizes of students of `TEACHER`."""


def array(values: torch.Tensor) -> Array:
    return values.detach().double().numpy()


def stage_array(features: Features, name: str) -> Array:
    """The map of this stage."""
    return array(stage(features, name))


def convolve_array(x: Array, layer: torch.nn.Module) -> Array:
    """A convolution of any odd kernel that keeps the size."""
    assert isinstance(layer, torch.nn.Conv2d)
    weight = array(layer.weight)
    height, width = x.shape[2:]
    reach = weight.shape[-1] // 2
    padded = np.pad(x, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    result = np.zeros((len(x), len(weight), height, width))
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            result += np.einsum("oc,bchw->bohw", weight[:, :, i, j], padded[:, :, i : i + height, j : j + width])
    return result if layer.bias is None else result + array(layer.bias)[:, None, None]


def normalise_array(x: Array) -> Array:
    """A new batch norm while it trains."""
    return (x - x.mean(axis=(0, 2, 3), keepdims=True)) / np.sqrt(x.var(axis=(0, 2, 3), keepdims=True) + 1e-5)


def conv_bn_array(x: Array, layers: torch.nn.Module) -> Array:
    """A convolution and a new batch norm while it trains."""
    assert isinstance(layers, torch.nn.Sequential)
    return normalise_array(convolve_array(x, layers[0]))


def make_identity(layer: torch.nn.Module) -> None:
    """A convolution hands its inputs on."""
    assert isinstance(layer, torch.nn.Conv2d)
    torch.nn.init.dirac_(layer.weight)
    if layer.bias is not None:
        torch.nn.init.zeros_(layer.bias)


def all_of(channels: int) -> Channels:
    """The same count at every stage."""
    return Channels((channels,) * 5, (channels,) * 4, channels)
