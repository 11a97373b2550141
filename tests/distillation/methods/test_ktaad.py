"""KTAAD and its auto-encoder."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from distillation.method import Method
from distillation.methods.ktaad import KTAAD
from distillation.teacher import NetworkTeacher
from tests.contracts.methods import PAIRS, MethodContract, tiny_distiller
from tests.golden.arrays import Array, array, convolve_array, normalise_array, resize_array, stage_array
from tests.golden.features import STUDENTS, TEACHER, random_batch, student_and_teacher
from tests.small import TinyNetwork, make_method
from utils.batch import Batch


class TestKTAAD(MethodContract):
    name, same_level = "ktaad", True

    def make_identity(self, method: Method) -> None:
        """A student that already speaks the auto-encoder's language."""
        assert isinstance(method, KTAAD)
        method.adapter = method.autoencoder.encoder


def unit_array(x: Array) -> Array:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)


def affinity(x: Array) -> Array:
    vectors = unit_array(x.reshape(*x.shape[:2], -1))
    return np.einsum("bcn,bcm->bnm", vectors, vectors)


def golden_code(x: Array, method: KTAAD) -> Array:
    """The new encoder's, whose frozen batch norms divide by the root of 1 + 1e-5 alone."""
    for i in range(3):
        x = np.maximum(convolve_array(x, method.autoencoder.encoder.get_submodule(f"{i}.0")) / np.sqrt(1 + 1e-5), 0)
    return x


@pytest.mark.parametrize("kind", STUDENTS)
def test_values_are_the_golden_ones(kind: str) -> None:
    channels, (student, teacher) = STUDENTS[kind][0], student_and_teacher(kind)
    torch.manual_seed(0)
    method = make_method("ktaad,layer=e4", channels, TEACHER)
    assert isinstance(method, KTAAD)
    s, t = stage_array(student, "e4"), stage_array(teacher, "e4")
    adapted = np.maximum(normalise_array(convolve_array(s, method.adapter.get_submodule("0"))), 0)
    gap = unit_array(resize_array(adapted, t.shape[2:])) - unit_array(golden_code(t, method))
    affinities = affinity(resize_array(s, t.shape[2:])) - affinity(t)
    terms = method(student, teacher, random_batch())
    assert {name: value.item() for name, value in terms.items()} == {
        "adaptation": pytest.approx(50 * np.linalg.norm(gap, axis=1).mean(), rel=1e-4),
        "affinity": pytest.approx(np.square(affinities).mean(), rel=1e-4),
    }


class CountingLoader:
    """Like a DataLoader, it takes from the global generator; it counts the batches it has given."""

    def __init__(self, batches: int) -> None:
        self.batches, self.given = batches, 0

    def __iter__(self) -> Iterator[Batch]:
        torch.rand(1)
        for _ in range(self.batches):
            self.given += 1
            yield random_batch()


def prepared(loader: CountingLoader, steps: int) -> tuple[KTAAD, TinyNetwork]:
    torch.manual_seed(0)
    teacher = TinyNetwork(*PAIRS["unequal"][1], classes=2)
    method = KTAAD(teacher.channels, teacher.channels, steps=steps)
    method.prepare(NetworkTeacher(teacher), loader)
    return method, teacher


@pytest.mark.parametrize(("batches", "steps", "given"), [(4, 6, 6), (2, 400, 20), (4, 0, 0)])
def test_auto_encoder_learns_for_as_many_batches_as_it_is_given(batches: int, steps: int, given: int) -> None:
    loader = CountingLoader(batches)
    prepared(loader, steps)
    assert loader.given == given


def test_auto_encoder_learns_to_hand_the_teachers_map_on() -> None:
    losses = []
    for steps in (0, 60):
        method, teacher = prepared(CountingLoader(20), steps)
        maps = teacher.features(random_batch().image).encoder[4]
        losses.append(method.autoencoder.train().loss(maps).item())
    assert losses[1] < 0.1 * losses[0]


def test_preparing_is_repeatable_and_leaves_the_random_state_alone() -> None:
    states = []
    for steps in (5, 5, 0):
        method, _ = prepared(CountingLoader(5), steps)
        states.append((method.state_dict(), torch.get_rng_state()))
    (first, _), (second, random), (_, untouched) = states
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(random, untouched)


def test_auto_encoder_is_frozen_from_the_beginning_and_also_while_the_student_trains() -> None:
    task = tiny_distiller("ktaad", "unequal").train()
    encoder = {name: value.clone() for name, value in task.state_dict().items() if ".autoencoder." in name}
    trained = [p for p in task.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.1)
    task(random_batch())["loss"].backward()
    optimizer.step()
    after = task.state_dict()
    assert encoder and all(torch.equal(value, after[name]) for name, value in encoder.items())
    fresh = make_method("ktaad", task.network.channels, task.teacher.channels)
    assert {name.partition(".")[0] for name, p in fresh.named_parameters() if p.requires_grad} == {"adapter"}


def test_a_resumed_run_has_the_same_auto_encoder() -> None:
    method, teacher = prepared(CountingLoader(5), 5)
    resumed = KTAAD(teacher.channels, teacher.channels)
    resumed.load_state_dict(method.state_dict())
    maps = teacher.features(random_batch().image).encoder[4]
    codes = [array(each.autoencoder.encoder(maps)) for each in (method, resumed)]
    np.testing.assert_array_equal(*codes)
