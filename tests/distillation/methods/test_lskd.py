"""Logit standardisation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from distillation.distiller import Distiller
from tests.contracts.methods import MethodContract, tiny_distiller
from tests.golden.arrays import assert_terms
from tests.golden.logits import (
    CLASSES,
    assert_no_exploding_gradient_at_equal_logits,
    assert_ratios,
    by_pixel,
    disagreement,
    equation_of,
    largest_gradient,
    pixel_kl_array,
    student_teacher_mask,
    terms_of,
)


class TestStandardisedKD(MethodContract):
    name, same_level = "lskd", True

    def learner(self, pair: str) -> Distiller:
        return tiny_distiller(self.name, pair, classes=3)


@pytest.mark.parametrize("classes", CLASSES)
def test_term_is_golden(classes: int) -> None:
    student, teacher, mask = student_teacher_mask(classes)
    s, t = (stats.zscore(by_pixel(logits), axis=1) for logits in (student, teacher))
    assert_terms(terms_of("lskd", student, teacher, mask), {"logits": 9 * pixel_kl_array(s, t, 2)})


def test_weight() -> None:
    assert_ratios("lskd", "lskd,weight=1", {"logits": 1 / 9})


def test_scale_and_shift_of_the_logits_do_not_matter() -> None:
    student, teacher, mask = student_teacher_mask(3)
    plain, changed = (terms_of("lskd", s, teacher, mask)["logits"] for s in (student, 7 * student - 2))
    assert changed.item() == pytest.approx(plain.item(), rel=1e-5)
    assert terms_of("lskd", 7 * teacher - 2, teacher, mask)["logits"].item() < 1e-6 * plain.item()


def test_with_two_classes_it_counts_pixels_and_says_that_it_teaches_nothing() -> None:
    student, teacher, mask = student_teacher_mask(2)
    loss = terms_of("lskd", student, teacher, mask)["logits"]
    of_one_pixel = pixel_kl_array(np.array([[1.0, -1.0]]), np.array([[-1.0, 1.0]]), 2)
    assert loss.item() == pytest.approx(9 * of_one_pixel * disagreement(student, teacher), rel=1e-5)
    kd = terms_of("kd", student, teacher, mask)["logits"]
    assert largest_gradient(loss, student) < 1e-4 * largest_gradient(kd, student)
    assert ["no gradient" in equation_of("lskd", classes) for classes in (2, 3)] == [True, False]


def test_pixels_whose_classes_have_equal_logits_get_no_exploding_gradient() -> None:
    assert_no_exploding_gradient_at_equal_logits("lskd")
