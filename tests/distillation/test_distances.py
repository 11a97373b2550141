"""Distances of maps: what they are 0 for, and what they do not depend on."""

from __future__ import annotations

import pytest
import torch

from distillation.distances import attention_distance, channel_kl, softened_kl
from tests.golden.features import STUDENT, STUDENT_SIZES, random_features


def test_equal_maps_are_at_distance_0() -> None:
    maps = random_features(STUDENT, STUDENT_SIZES, seed=1).encoder[1]
    assert channel_kl(maps, maps.clone(), temperature=4.0).item() == 0
    assert attention_distance(maps, maps.clone(), maps.shape[2:]).item() == 0


def test_attention_does_not_depend_on_scale_however_large() -> None:
    student, teacher = (random_features(STUDENT, STUDENT_SIZES, seed).encoder[1] for seed in (1, 2))
    distance = attention_distance(student, teacher, (4, 5))
    scaled = attention_distance(1e15 * student, 1e-15 * teacher, (4, 5))
    assert scaled.item() == pytest.approx(distance.item(), rel=1e-4)


@pytest.mark.parametrize("scale", [1e-38, 1e-39])
def test_gradients_of_the_smallest_maps_are_no_nan(scale: float) -> None:
    student, teacher = (random_features(STUDENT, STUDENT_SIZES, seed).encoder[1] for seed in (1, 2))
    student = (scale * student.relu()).detach().requires_grad_()
    distance = attention_distance(student, teacher, student.shape[2:])
    (gradient,) = torch.autograd.grad(distance, student)
    assert distance.isfinite() and not gradient.isnan().any()


def test_maps_of_other_shapes_have_no_divergence() -> None:
    with pytest.raises(ValueError, match="no divergence"):
        channel_kl(torch.zeros(2, 3, 4, 4), torch.zeros(4, 3, 4, 4), 4.0)


def test_divergence_has_the_gradient_of_its_formula() -> None:
    student, teacher = (random_features(STUDENT, STUDENT_SIZES, seed).encoder[1] for seed in (1, 2))
    student, teacher = student.detach().requires_grad_(), teacher.detach()
    gradients = []
    for divergence in (channel_kl(student, teacher, 4.0), 16 * softened_kl(student, teacher, 4.0, dim=1)):
        gradients.extend(torch.autograd.grad(3 * divergence, student))
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-8)
    assert gradients[0].abs().max() > 0
