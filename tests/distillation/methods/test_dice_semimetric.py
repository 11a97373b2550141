"""Dice semimetric loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from distillation.segmentation_loss import segmentation_loss
from tests.contracts.methods import MethodContract
from tests.golden.arrays import Array, array, assert_terms, log_softmax_array
from tests.golden.logits import CLASSES, assert_ratios, equation_of, random_logits, student_teacher_mask, terms_of


class TestDiceSemimetric(MethodContract):
    name, same_level = "dice_semimetric", True


def foreground(logits: torch.Tensor) -> Array:
    return np.exp(log_softmax_array(array(logits)))[:, 1:]


@pytest.mark.parametrize("classes", CLASSES)
def test_term_is_golden(classes: int) -> None:
    student, teacher, mask = student_teacher_mask(classes)
    s, t = foreground(student), foreground(teacher)
    sizes = np.abs(s).sum() + np.abs(t).sum()
    expected = 1 - (sizes - np.abs(s - t).sum() + 1) / (sizes + 1)
    assert_terms(terms_of("dice_semimetric", student, teacher, mask), {"semimetric": expected})


@pytest.mark.parametrize("classes", CLASSES)
def test_of_hard_labels_it_is_the_tasks_dice_loss(classes: int) -> None:
    student, _, mask = student_teacher_mask(classes)
    certain = 200 * F.one_hot(mask.long(), classes).movedim(3, 1).float()
    loss = terms_of("dice_semimetric", student, certain, mask)["semimetric"]
    assert loss.item() == pytest.approx(2 * segmentation_loss(student, mask)["dice"].item(), rel=1e-5)


def test_of_soft_labels_it_is_0_where_dice_is_not() -> None:
    logits, mask = random_logits(3, 1), torch.zeros(2, 7, 5, dtype=torch.uint8)
    assert terms_of("dice_semimetric", logits, logits.detach().clone() + 5, mask)["semimetric"].item() < 1e-6
    p = foreground(logits)
    assert 1 - 2 * (p * p).sum() / (2 * p.sum()) > 0.1


def test_weight() -> None:
    assert_ratios("dice_semimetric", "dice_semimetric,weight=3", {"semimetric": 3})
    assert equation_of("dice_semimetric,weight=3", 2) == "3 DML(t_logits -> s_logits)"
