"""VID."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from distillation.method import Method
from distillation.methods.vid import VID
from tests.contracts.methods import MethodContract
from tests.golden.arrays import assert_terms, make_identity, project_array, resize_array, stage_array
from tests.golden.features import (
    STUDENTS,
    TEACHER,
    equal_channels,
    random_batch,
    student_and_teacher,
)
from tests.small import make_method

LAYERS = ("e2", "e3", "e4", "e5")
ENOUGH = 100.0
"""Added before the ReLUs and taken away after them, it lets every value through."""


class TestVID(MethodContract):
    name, same_level = "vid", True
    minimum = dict.fromkeys(LAYERS, math.log(5) / 2)

    def make_identity(self, method: Method) -> None:
        assert isinstance(method, VID)
        for regressor in method.transforms.values():
            for convolution, bias in zip(list(regressor)[::2], (ENOUGH, 0, -ENOUGH), strict=True):
                make_identity(convolution)
                torch.nn.init.constant_(convolution.bias, bias)


@pytest.mark.parametrize("kind", STUDENTS)
def test_value_is_the_golden_one(kind: str) -> None:
    channels, (student, teacher) = STUDENTS[kind][0], student_and_teacher(kind)
    method = make_method("vid,weight=0.3", channels, TEACHER)
    assert isinstance(method, VID)
    expected = {}
    for layer in LAYERS:
        mean, t = stage_array(student, layer), stage_array(teacher, layer)
        spreads = np.linspace(-2, 3, t.shape[1])[:, None, None]
        method.spreads[layer].data = torch.tensor(spreads, dtype=torch.float)
        for i, convolution in enumerate(list(method.transforms[layer])[::2]):
            mean = project_array(np.maximum(mean, 0) if i else mean, convolution)
        variance = np.log1p(np.exp(spreads)) + 1e-5
        likelihood = -((resize_array(mean, t.shape[2:]) - t) ** 2) / (2 * variance) - np.log(variance) / 2
        expected[layer] = -0.3 * likelihood.mean()
    assert_terms(method(student, teacher, random_batch()), expected)


def test_variances_start_at_5_and_never_reach_0() -> None:
    method = VID(equal_channels(3), equal_channels(3))
    assert torch.allclose(method.variance("e5"), torch.tensor(5.0))
    method.spreads["e5"].data.fill_(-1000)
    maps = torch.randn(2, 3, 4, 5)
    assert method.distance("e5", maps, maps).item() == pytest.approx(math.log(1e-5) / 2, rel=1e-5)


def test_a_channels_best_variance_is_its_mean_squared_error() -> None:
    method = VID(equal_channels(3), equal_channels(3))
    draw = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 3, 4, 5, generator=draw) for _ in range(2))
    errors = (student - teacher).square().mean(dim=(0, 2, 3))
    method.spreads["e5"].data = (errors - 1e-5).expm1().log().view(3, 1, 1)
    best = method.distance("e5", student, teacher)
    (at_best,) = torch.autograd.grad(best, method.spreads["e5"])
    assert best.item() == pytest.approx((1 + errors.log()).mean().item() / 2, rel=1e-5)
    for change in (-0.1, 0.1):
        method.spreads["e5"].data += change
        changed = method.distance("e5", student, teacher)
        assert changed > best
        (gradient,) = torch.autograd.grad(changed, method.spreads["e5"])
        assert at_best.abs().max() < 1e-4 * gradient.abs().max()
        method.spreads["e5"].data -= change
