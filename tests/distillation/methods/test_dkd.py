"""Decoupled knowledge distillation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.contracts.methods import MethodContract
from tests.golden.arrays import Array, log_softmax_array
from tests.golden.logits import (
    CLASSES,
    assert_ratios,
    by_pixel,
    equation_of,
    pixel_kl_array,
    random_logits,
    student_teacher_mask,
    terms_of,
)


class TestDecoupledKD(MethodContract):
    name, same_level = "dkd", True


def golden(s: Array, t: Array, target: Array) -> dict[str, float]:
    is_target = np.eye(s.shape[1], dtype=bool)[target]
    p, q = (np.exp(log_softmax_array(logits / 4))[is_target] for logits in (s, t))
    tckd = q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))
    others = (logits[~is_target].reshape(len(logits), -1) for logits in (s, t))
    return {"tckd": 16 * tckd.mean(), "nckd": 8 * pixel_kl_array(*others, 4)}


@pytest.mark.parametrize("classes", CLASSES)
def test_terms_are_golden(classes: int) -> None:
    student, teacher, mask = student_teacher_mask(classes)
    expected = golden(by_pixel(student), by_pixel(teacher), mask.flatten().numpy())
    terms = {term: value.item() for term, value in terms_of("dkd", student, teacher, mask).items()}
    assert terms == pytest.approx(expected, rel=1e-5)


def test_weights() -> None:
    assert_ratios("dkd", "dkd,alpha=2,beta=4", {"tckd": 2, "nckd": 0.5})


def test_parts_of_a_pixel_add_up_to_kd() -> None:
    """KD = TCKD + (1 - q) NCKD with q the teacher's probability of the true class, the paper's equation 7."""
    student, teacher = (random_logits(4, seed)[:1, :, :1, :1] for seed in (1, 2))
    mask = torch.ones(1, 1, 1, dtype=torch.uint8)
    parts = terms_of("dkd,beta=1", student, teacher, mask)
    q = (teacher / 4).softmax(dim=1)[0, 1, 0, 0]
    kd = terms_of("kd,temperature=4", student, teacher, mask)["logits"]
    assert (parts["tckd"] + (1 - q) * parts["nckd"]).item() == pytest.approx(kd.item(), rel=1e-5)


def test_terms_stay_finite_for_probabilities_of_0_and_1() -> None:
    student = torch.tensor([300.0, -300.0, 0.0]).view(1, 3, 1, 1).requires_grad_()
    teacher = torch.tensor([-300.0, 300.0, 0.0]).view(1, 3, 1, 1)
    terms = terms_of("dkd,temperature=1", student, teacher, torch.zeros(1, 1, 1, dtype=torch.uint8))
    (terms["tckd"] + terms["nckd"]).backward()
    assert all(value.isfinite() for value in terms.values()) and student.grad.isfinite().all()


def test_with_two_classes_it_is_kd_with_nothing_among_the_others() -> None:
    student, teacher, mask = student_teacher_mask(2)
    terms = terms_of("dkd", student, teacher, mask)
    assert terms["nckd"].item() == 0
    kd = terms_of("kd,temperature=4", student, teacher, mask)["logits"]
    assert terms["tckd"].item() == pytest.approx(kd.item(), rel=1e-5)
    assert [equation_of("dkd", n).endswith("(no gradient: two classes)") for n in (2, 3)] == [True, False]
