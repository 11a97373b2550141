"""Weights that balance the terms of a loss by their gradients."""

from __future__ import annotations

import pytest
import torch

from distillation.balance import EVERY, GradientBalance
from distillation.distiller import Distiller
from distillation.gradients import gradient_norms
from tests.contracts.methods import tiny_distiller
from tests.golden.features import random_batch

TASK = ("focal", "dice", "loss")


def gradient_norms_of(task: Distiller) -> dict[str, float]:
    """The gradient's norm on the student, of the segmentation loss and of each other term."""
    terms = task(random_batch())
    segmentation = terms["focal"] + terms["dice"]
    taught = {term: value for term, value in terms.items() if term not in TASK}
    student = [p for p in task.network.parameters() if p.requires_grad]
    norms = gradient_norms({"segmentation": segmentation, **taught}, {"all": student})
    return {term: float(groups["all"]) for term, groups in norms.items()}


class TestGradientBalance:
    def task(self, share: float = 0.4) -> Distiller:
        plain = tiny_distiller("hlfd", "unequal")
        return Distiller(plain.network, plain.teacher, plain.method, balance=share)

    def test_terms_have_equal_gradients_and_together_the_share(self) -> None:
        norms = gradient_norms_of(self.task(share=0.4))
        segmentation = norms.pop("segmentation")
        assert len(norms) == 8
        assert all(norm == pytest.approx(0.4 * segmentation / 8, rel=1e-3) for norm in norms.values())

    def test_measures_now_and_then_and_not_in_evaluation(self) -> None:
        task = self.task()
        task(random_batch())
        first = dict(task.balance.scales)
        with torch.no_grad():
            for parameter in task.network.parameters():
                parameter.mul_(1.5)
        for _ in range(EVERY - 1):
            task(random_batch())
        task.eval()(random_batch())
        assert task.balance.scales == first
        task.train()(random_batch())
        assert task.balance.scales != first

    def test_weights_survive_a_restart(self) -> None:
        task, other = self.task(), self.task()
        task(random_batch())
        other.load_extra_state(task.network.state_dict(), task.extra_state())
        assert (other.balance.steps, other.balance.scales) == (1, task.balance.scales)

    def test_the_scale_of_a_satisfied_term_is_bounded(self) -> None:
        weight = torch.nn.Parameter(torch.ones(()))
        balanced = GradientBalance(1.0)({"seg": weight}, {"little": 1e-9 * weight}, [weight])
        assert float(balanced["little"].detach()) == pytest.approx(1e-6)

    def test_a_measurement_that_overflows_is_left_out(self) -> None:
        weight = torch.nn.Parameter(torch.ones(()))
        balance = GradientBalance(1.0)
        for segmentation, term in ((2, 4), (2, torch.inf), (torch.inf, 4), (torch.nan, torch.nan)):
            balance.measure_next()
            balance({"seg": segmentation * weight}, {"term": term * weight}, [weight])
            assert balance.scales == {"term": 0.5}

    def test_terms_that_do_not_reach_the_student_stay_and_do_not_count(self) -> None:
        weight, other = torch.nn.Parameter(torch.ones(())), torch.nn.Parameter(torch.ones(()))
        terms = {"reaching": 5 * weight, "own": 3 * other}
        balanced = GradientBalance(0.5)({"seg": 2 * weight}, terms, [weight])
        assert {term: float(value.detach()) for term, value in balanced.items()} == {"reaching": 1, "own": 3}

    def test_the_equation_says_so(self) -> None:
        assert "balanced to 0.4 (0.1 (" in self.task().equation()
