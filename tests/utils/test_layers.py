"""Layers that networks and methods share."""

from __future__ import annotations

import torch

from utils.layers import BatchNorm


def test_batch_norm_of_one_value_uses_the_running_statistics() -> None:
    norm = BatchNorm(3)
    norm(torch.randn(4, 3, 5, 5))
    mean = norm.running_mean.clone()
    value = torch.randn(1, 3, 1, 1)
    trained = norm(value)
    assert torch.equal(norm.running_mean, mean)
    assert torch.equal(trained, norm.eval()(value))


def test_batch_norm_of_more_values_is_the_usual_one() -> None:
    values = torch.randn(2, 3, 1, 1)
    torch.testing.assert_close(BatchNorm(3)(values), torch.nn.BatchNorm2d(3)(values))
