"""DIST."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from tests.contracts.methods import MethodContract
from tests.golden.arrays import log_softmax_array
from tests.golden.logits import (
    CLASSES,
    assert_no_exploding_gradient_at_equal_logits,
    assert_ratios,
    by_pixel,
    disagreement,
    equation_of,
    largest_gradient,
    noise,
    random_logits,
    random_mask,
    student_teacher_mask,
    terms_of,
)


class TestDIST(MethodContract):
    name, same_level = "dist", True
    # The tiny networks' logits hardly vary: what correlates in half precision is mostly their rounding.
    half_tolerance = 0.5
    # 1 - correlation has the rounding of 1.
    rounding = 1e-5
    # And so correlations of two roundings would be compared.
    steepness = 10.0


@pytest.mark.parametrize("classes", CLASSES)
def test_terms_are_golden(classes: int) -> None:
    student, teacher, mask = student_teacher_mask(classes)
    p, q = (np.exp(log_softmax_array(by_pixel(logits))) for logits in (student, teacher))
    inter, intra = (stats.pearsonr(p, q, axis=axis).statistic.mean() for axis in (1, 0))
    terms = {term: value.item() for term, value in terms_of("dist", student, teacher, mask).items()}
    assert terms == pytest.approx({"inter": 1 - inter, "intra": 1 - intra}, rel=1e-5)


def test_weights() -> None:
    assert_ratios("dist", "dist,beta=2,gamma=3", {"inter": 2, "intra": 3})


def test_temperature_softens_the_probabilities() -> None:
    student, teacher, mask = student_teacher_mask(3)
    softened = terms_of("dist,temperature=4", student, teacher, mask)
    by_hand = terms_of("dist", student / 4, teacher / 4, mask)
    assert {k: v.item() for k, v in softened.items()} == pytest.approx({k: 16 * v.item() for k, v in by_hand.items()})


def test_what_does_not_vary_has_no_correlation_and_a_finite_gradient() -> None:
    student = torch.zeros(2, 3, 7, 5, requires_grad=True)
    terms = terms_of("dist", student, random_logits(3, 2), random_mask(3))
    assert [value.item() for value in terms.values()] == [1, 1]
    sum(terms.values()).backward()
    assert student.grad.isfinite().all()


def test_with_two_classes_only_correlation_within_a_class_teaches() -> None:
    student, teacher, mask = student_teacher_mask(2)
    terms = terms_of("dist", student, teacher, mask)
    assert terms["inter"].item() == pytest.approx(2 * disagreement(student, teacher))
    intra_gradient = largest_gradient(terms["intra"], student)
    assert largest_gradient(terms["inter"], student) < 1e-4 * intra_gradient
    notes = ["s_logits)) (no gradient: two classes) + (1 - intra" in equation_of("dist", n) for n in (2, 3)]
    assert notes == [True, False]


def test_a_student_that_predicts_background_alone_gets_no_exploding_gradient() -> None:
    """One gradient of 1e4 would leave Adam's second moments useless for the rest of a short training."""
    student = (torch.tensor([6.0, -6.0]).view(1, 2, 1, 1) + 1e-3 * noise(1)).requires_grad_()
    intra = terms_of("dist", student, noise(2), torch.zeros(2, 16, 16, dtype=torch.uint8))["intra"]
    intra.backward()
    assert intra.item() == pytest.approx(1, abs=0.2)
    assert 0 < student.grad.norm() < 0.01


def test_pixels_whose_classes_have_equal_logits_get_no_exploding_gradient() -> None:
    assert_no_exploding_gradient_at_equal_logits("dist")
