"""Weights that balance the terms of a loss by their gradients."""

from __future__ import annotations

import pytest
import torch

from distillation.balance import EVERY, GradientBalance
from distillation.distiller import Distiller
from distillation.gradients import gradient_norms
from distillation.segmentation_loss import segmentation_loss
from networks.contract import Features
from tests.contracts.methods import tiny_distiller
from tests.golden.features import random_batch
from tests.golden.logits import channels, student_teacher_mask
from tests.small import make_method
from utils.batch import Batch

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

    def test_the_scale_of_a_small_term_is_bounded(self) -> None:
        weight = torch.nn.Parameter(torch.ones(()))
        balanced = GradientBalance(1.0)({"seg": weight}, {"little": 2e-4 * weight}, [weight])
        assert float(balanced["little"].detach()) == pytest.approx(0.2)

    @pytest.mark.parametrize("largest", ["seg", "large"])
    def test_rounding_noise_keeps_its_weight_and_does_not_count(self, largest: str) -> None:
        weight = torch.nn.Parameter(torch.ones(()))
        values = {"seg": 0.5, "large": 0.5, largest: 2.0}
        balance = GradientBalance(1.0)
        terms = {"large": values["large"] * weight, "noise": 1.9e-4 * weight}
        balance({"seg": values["seg"] * weight}, terms, [weight])
        assert balance.scales == {"large": pytest.approx(values["seg"] / values["large"])}

    def test_a_term_that_falls_silent_gets_its_own_weight_back(self) -> None:
        weight = torch.nn.Parameter(torch.ones(()))
        balance = GradientBalance(1.0)
        for value in (0.5, 1e-7):
            balance.measure_next()
            balanced = balance({"seg": weight}, {"term": value * weight}, [weight])
        assert float(balanced["term"].detach()) == pytest.approx(1e-7)

    @pytest.mark.parametrize(("name", "alive"), [("dist", {"intra"}), ("lskd", set())])
    def test_what_two_classes_leave_without_a_gradient_is_not_blown_up(self, name: str, alive: set[str]) -> None:
        """The gradients of logits themselves, where the noise is; DIST's other term gets the whole share."""
        student, teacher, mask = student_teacher_mask(2)
        logits = torch.nn.Parameter(student.detach().clone())
        features = (Features((), (), each) for each in (logits, teacher.detach()))
        batch = Batch(torch.zeros(2, 1, *mask.shape[1:]), mask, ["a", "b"])
        terms = make_method(name, channels(2), channels(2))(*features, batch)
        balance = GradientBalance(0.3)
        balanced = balance(segmentation_loss(logits, mask), terms, [logits])
        assert set(balance.scales) == alive
        assert all(balanced[term].item() == terms[term].item() for term in terms.keys() - alive)

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
