"""What the tests of networks' layers share."""

from __future__ import annotations

import numpy as np
import torch

from tests.golden.arrays import Array, array


def random_maps(channels: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, channels, 6, 8, generator=torch.Generator().manual_seed(seed))


def assert_module_gives(module: torch.nn.Module, maps: torch.Tensor, expected: Array) -> None:
    """In evaluation."""
    assert_close(array(module.eval()(maps)), expected)


def assert_close(values: Array, expected: Array, rel: float = 1e-5) -> None:
    """rel: of the largest value."""
    assert values.shape == expected.shape
    assert np.abs(values - expected).max() <= rel * np.abs(expected).max()


def prelu_array(x: Array) -> Array:
    """With PyTorch's initial slope."""
    return np.where(x > 0, x, 0.25 * x)
