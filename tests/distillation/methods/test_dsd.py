"""DSD."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from distillation.methods.dsd import class_correlation, residual_attention
from networks.contract import Features
from tests.contracts.methods import MethodContract
from tests.golden.arrays import Array, log_softmax_array, resize_array, stage_array
from tests.golden.features import STUDENTS, TEACHER, TEACHER_SIZES, random_batch, random_features, student_and_teacher
from tests.small import make_method
from utils.errors import UserError


class TestDSD(MethodContract):
    name, same_level = "dsd", True


def normalised(rows: Array) -> Array:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def golden_residual(features: Features, lower: str, upper: str, size: tuple[int, ...]) -> Array:
    first, second = (
        normalised(resize_array((stage_array(features, layer) ** 2).mean(axis=1), size).reshape(2, -1))
        for layer in (lower, upper)
    )
    return normalised(second - first)


def golden_correlation(features: Features, temperature: float) -> Array:
    probabilities = np.exp(log_softmax_array(stage_array(features, "logits") / temperature))
    maps = normalised(probabilities.reshape(*probabilities.shape[:2], -1))
    return maps @ maps.transpose(0, 2, 1)


@pytest.mark.parametrize("kind", STUDENTS)
def test_values_are_the_golden_ones(kind: str) -> None:
    channels, (student, teacher) = STUDENTS[kind][0], student_and_teacher(kind)
    residuals = []
    for lower, upper in pairwise(("e2", "e3", "e4", "e5")):
        shapes = [stage_array(teacher, layer).shape[2:] for layer in (lower, upper)]
        size = min(shapes, key=np.prod)
        s, t = (golden_residual(features, lower, upper, size) for features in (student, teacher))
        residuals.append(np.square(s - t).sum(axis=1).mean() / (64 * 128))
    correlations = golden_correlation(student, 4.0) - golden_correlation(teacher, 4.0)
    terms = make_method("dsd", channels, TEACHER)(student, teacher, random_batch())
    assert {name: value.item() for name, value in terms.items()} == {
        "pixel": pytest.approx(1000 * np.mean(residuals), rel=1e-4),
        "category": pytest.approx(10 * np.square(correlations).mean(), rel=1e-4),
    }


def test_residual_attention_sees_where_and_not_how_strongly() -> None:
    lower, upper = random_features(TEACHER, TEACHER_SIZES, seed=1).encoder[2:4]
    usual = residual_attention(lower, upper, (4, 3))
    torch.testing.assert_close(residual_attention(-7 * lower, upper / 100, (4, 3)), usual)
    torch.testing.assert_close(residual_attention(upper, lower, (4, 3)), -usual)


def test_certain_classes_are_uncorrelated_and_classes_that_share_pixels_are_not() -> None:
    logits = torch.full((1, 3, 4, 4), -100.0)
    logits[:, 0, :2], logits[:, 1, 2:], logits[:, 2, 2:] = 100.0, 100.0, 100.0
    correlation = class_correlation(logits, temperature=1.0)[0]
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    torch.testing.assert_close(correlation, expected)


def test_equation_names_neighbours_and_one_layer_has_none() -> None:
    equation = make_method("dsd,layers=e3+e5+d4", TEACHER, TEACHER).equation()
    pixel = "1000 (PSD(t_e3,t_e5 -> s_e3,s_e5) + PSD(t_e5,t_d4 -> s_e5,s_d4)) / 2"
    assert equation == f"{pixel} + 10 CSD(t_logits -> s_logits)"
    with pytest.raises(UserError, match="dsd,layers=e5: give at least two stages"):
        make_method("dsd,layers=e5", TEACHER, TEACHER)
