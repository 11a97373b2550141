"""Layers and distances in NumPy and float64, for golden values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from networks.contract import Features

Array = NDArray[np.float64]


def array(values: torch.Tensor) -> Array:
    return values.detach().double().numpy()


def stage_array(features: Features, *names: str) -> Array:
    """The map of a stage; of several with their channels side by side, at the smallest size."""
    maps = [array(features.stage(name)) for name in names]
    size = min((m.shape[2:] for m in maps), key=lambda shape: shape[0] * shape[1])
    return np.concatenate([resize_array(m, size) for m in maps], axis=1)


def resize_array(x: Array, size: Sequence[int], align_corners: bool = False) -> Array:
    """Bilinear resize of [..., h, w] to (H, W), without antialiasing."""
    rows = _bilinear_weights(x.shape[-2], size[0], align_corners)
    columns = _bilinear_weights(x.shape[-1], size[1], align_corners)
    return rows @ x @ columns.T


def _bilinear_weights(inputs: int, outputs: int, align_corners: bool) -> Array:
    """[outputs, inputs]: what each output pixel takes from each input pixel."""
    weights = np.zeros((outputs, inputs))
    for i in range(outputs):
        centre = max((i + 0.5) * inputs / outputs - 0.5, 0.0)
        position = i * (inputs - 1) / (outputs - 1) if align_corners else centre
        low = min(int(position), inputs - 1)
        weights[i, low] += 1 - (position - low)
        weights[i, min(low + 1, inputs - 1)] += position - low
    return weights


def project_array(x: Array, convolution: torch.nn.Module) -> Array:
    """A 1x1 convolution, or the identity in its place."""
    if isinstance(convolution, torch.nn.Identity):
        return x
    assert isinstance(convolution, torch.nn.Conv2d) and convolution.kernel_size == (1, 1)
    return convolve_array(x, convolution)


def convolve_array(x: Array, conv: torch.nn.Module) -> Array:
    """The zero-padded convolution of [B, C, H, W] that keeps the size, by its definition, one kernel element a time."""
    assert isinstance(conv, torch.nn.Conv2d)
    weight = array(conv.weight)
    bias = np.zeros(len(weight)) if conv.bias is None else array(conv.bias)
    (rows, columns), (down, right) = conv.padding, conv.dilation
    padded = np.pad(x, ((0, 0), (0, 0), (rows, rows), (columns, columns)))
    height, width = x.shape[2:]
    result = np.zeros((len(x), len(weight), height, width)) + bias[:, None, None]
    outputs_per_group = len(weight) // conv.groups
    for o, kernel in enumerate(weight):
        first = o // outputs_per_group * weight.shape[1]
        for c, i, j in np.ndindex(kernel.shape):
            result[:, o] += kernel[c, i, j] * padded[:, first + c, i * down :, j * right :][:, :height, :width]
    return result


def normalise_array(x: Array) -> Array:
    """A new batch norm while it trains."""
    return (x - x.mean(axis=(0, 2, 3), keepdims=True)) / np.sqrt(x.var(axis=(0, 2, 3), keepdims=True) + 1e-5)


def new_batch_norm_array(x: Array) -> Array:
    """A new batch norm in evaluation."""
    return x / np.sqrt(1 + 1e-5)


def conv_bn_array(x: Array, layers: torch.nn.Module) -> Array:
    """A convolution and a new batch norm while it trains."""
    assert isinstance(layers, torch.nn.Sequential)
    return normalise_array(convolve_array(x, layers[0]))


def log_softmax_array(x: Array) -> Array:
    shifted = x - x.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def kl_sum_array(student: Array, teacher: Array, temperature: float = 4.0) -> float:
    """T^2 KL over the channels, summed over batch and pixels."""
    log_p, log_q = log_softmax_array(student / temperature), log_softmax_array(teacher / temperature)
    return float(temperature**2 * (np.exp(log_q) * (log_q - log_p)).sum())


def kl_array(student: Array, teacher: Array) -> float:
    """T^2 KL over the channels with T = 4, mean over batch and pixels, at the teacher's size."""
    student = resize_array(student, teacher.shape[2:])
    return kl_sum_array(student, teacher) / (teacher.size / teacher.shape[1])


def attention_array(student: Array, teacher: Array) -> float:
    """The distance of attention maps with exponent 4, at the teacher's size."""
    student = resize_array(student, teacher.shape[2:])
    maps = []
    for x in (student, teacher):
        power = (x**4).mean(axis=1).reshape(len(x), -1)
        maps.append(power / np.linalg.norm(power, axis=1, keepdims=True))
    return float(((maps[0] - maps[1]) ** 2).sum(axis=1).mean())


def assert_terms(terms: dict[str, torch.Tensor], expected: dict[str, float], rel: float = 1e-5) -> None:
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(expected, rel=rel)
    assert list(terms) == list(expected)


def make_identity(layer: torch.nn.Module) -> None:
    """A convolution hands its inputs on."""
    assert isinstance(layer, torch.nn.Conv2d)
    torch.nn.init.dirac_(layer.weight)
    if layer.bias is not None:
        torch.nn.init.zeros_(layer.bias)
