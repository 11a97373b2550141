"""Knowledge distillation."""

from __future__ import annotations

import pytest

from tests.contracts.methods import MethodContract
from tests.golden.arrays import assert_terms
from tests.golden.logits import CLASSES, assert_ratios, by_pixel, pixel_kl_array, student_teacher_mask, terms_of


class TestKD(MethodContract):
    name, same_level = "kd", True


class TestSoftKD(MethodContract):
    name, same_level = "kd_soft", True


@pytest.mark.parametrize(("name", "temperature", "weight"), [("kd", 1, 1), ("kd_soft", 4, 0.1)])
@pytest.mark.parametrize("classes", CLASSES)
def test_term_is_golden(classes: int, name: str, temperature: float, weight: float) -> None:
    student, teacher, mask = student_teacher_mask(classes)
    expected = weight * pixel_kl_array(by_pixel(student), by_pixel(teacher), temperature)
    assert_terms(terms_of(name, student, teacher, mask), {"logits": expected})


def test_weight() -> None:
    assert_ratios("kd", "kd,weight=3", {"logits": 3})
