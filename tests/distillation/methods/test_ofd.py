"""OFD."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from distillation.method import Method
from distillation.methods.ofd import MARGIN_BATCHES, OFD
from distillation.teacher import NetworkTeacher
from networks.contract import Features
from tests.contracts.methods import MethodContract
from tests.golden.arrays import array, assert_terms, conv_bn_array, make_identity, resize_array, stage_array
from tests.golden.features import (
    STUDENTS,
    TEACHER,
    equal_channels,
    random_batch,
    student_and_teacher,
)
from tests.small import TinyNetwork, make_method
from utils.batch import Batch


class TestOFD(MethodContract):
    name, same_level = "ofd", True

    def make_identity(self, method: Method) -> None:
        assert isinstance(method, OFD)
        for connector in method.transforms.values():
            make_identity(connector[0])


SCALES = {
    "e1": 257**2 / 16,
    "e2": 129**2 / 8,
    "e3": 65**2 / 4,
    "e4": 33**2 / 2,
    "e5": 33**2,
    "d5": 33**2 / 2,
    "d2": 257**2 / 16,
    "logits": 513**2 / 32,
}


@pytest.mark.parametrize("kind", STUDENTS)
def test_value_is_the_golden_one(kind: str) -> None:
    channels, (student, teacher) = STUDENTS[kind][0], student_and_teacher(kind)
    method = make_method(f"ofd,weight=0.01,layers={'+'.join(SCALES)}", channels, TEACHER)
    assert isinstance(method, OFD)
    expected = {}
    for layer, scale in SCALES.items():
        method.margin(layer).fill_(-0.8)
        s, t = stage_array(student, layer), stage_array(teacher, layer)
        if layer != "logits":
            s = resize_array(conv_bn_array(s, method.transforms[layer]), t.shape[2:])
        target = np.where(t > -0.8, t, -0.8)
        distance = np.where((s <= target) & (target <= 0), 0, (s - target) ** 2).sum(axis=1).mean()
        expected[layer] = 0.01 * scale * distance
    assert_terms(method(student, teacher, random_batch()), expected)


@pytest.mark.parametrize(
    ("student", "teacher", "distance"),
    [(-5, -3, 0), (-1.5, -1.2, 0), (-2, -0.5, 0), (-0.5, -4, 0.25), (-0.25, -0.5, 0.0625), (-2, 3, 25), (2, 3, 1)],
)
def test_what_the_teacher_holds_back_must_only_be_held_back(student: float, teacher: float, distance: float) -> None:
    method = OFD(equal_channels(1), equal_channels(1))
    method.margin("e5").fill_(-1)
    s, t = (torch.tensor(float(response)).view(1, 1, 1, 1) for response in (student, teacher))
    value = method.distance("e5", s.requires_grad_(), t)
    value.backward()
    assert value.item() == distance
    assert s.grad is not None and s.grad.any().item() == (distance > 0)


class Rectified(TinyNetwork):
    """Its encoder stages are taken after a ReLU."""

    def features(self, image: torch.Tensor) -> Features:
        features = super().features(image)
        return features._replace(encoder=tuple(maps.relu() for maps in features.encoder))


class TestMargins:
    shape = (TEACHER.encoder, TEACHER.decoder, 2, 2)

    def batches(self, count: int) -> Iterator[Batch]:
        for seed in range(count):
            image = torch.randn(2, 1, 33, 47, generator=torch.Generator().manual_seed(seed))
            yield Batch(image, torch.zeros(2, 33, 47, dtype=torch.uint8), ["", ""])

    def test_are_the_means_of_the_negative_responses_on_the_first_batches(self) -> None:
        torch.manual_seed(0)
        teacher, method = TinyNetwork(*self.shape), OFD(TEACHER, TEACHER)
        # A channel that is never negative has no margin.
        torch.nn.init.zeros_(teacher.down[4].weight[0])
        torch.nn.init.ones_(teacher.down[4].bias)
        loader = self.batches(MARGIN_BATCHES + 3)
        method.prepare(NetworkTeacher(teacher), loader)
        assert len(list(loader)) == 3
        for layer in ("e2", "e5"):
            with torch.no_grad():
                seen = [stage_array(teacher.features(batch.image), layer) for batch in self.batches(MARGIN_BATCHES)]
            responses = np.moveaxis(np.concatenate(seen), 1, 0).reshape(method.margin(layer).numel(), -1)
            expected = [row[row < 0].mean() if (row < 0).any() else 0 for row in responses]
            assert array(method.margin(layer)).ravel() == pytest.approx(expected, rel=1e-5)
        assert method.margin("e5")[0, 0] == 0 > method.margin("e2").min()

    def test_are_0_after_a_relu(self) -> None:
        method = OFD(TEACHER, TEACHER)
        method.prepare(NetworkTeacher(Rectified(*self.shape)), self.batches(2))
        assert not any(method.margin(layer).any() for layer in method.layers)

    def test_are_measured_without_chance_or_gradients(self) -> None:
        teacher, method = TinyNetwork(*self.shape), OFD(TEACHER, TEACHER)
        before = torch.get_rng_state()
        method.prepare(NetworkTeacher(teacher), self.batches(2))
        assert torch.equal(torch.get_rng_state(), before)
        assert not any(method.margin(layer).requires_grad for layer in method.layers)


def test_equation_says_how_much_each_resolution_counts() -> None:
    assert make_method("ofd", TEACHER, TEACHER).equation() == (
        "1e-05 (2080.12 OFD(t_e2 -> s_e2) + 1056.25 OFD(t_e3 -> s_e3) + 544.5 OFD(t_e4 -> s_e4)"
        " + 1089 OFD(t_e5 -> s_e5))"
    )
