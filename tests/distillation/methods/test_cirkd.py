"""CIRKD and its memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from distillation.method import Method
from distillation.methods.cirkd import ANCHORS, CIRKD, Memory, image_relations
from tests.contracts.methods import MethodContract
from tests.golden.arrays import Array, array, convolve_array, normalise_array, resize_array, stage_array
from tests.golden.features import (
    STUDENT,
    STUDENTS,
    TEACHER,
    TEACHER_SIZES,
    random_batch,
    random_features,
    student_and_teacher,
)
from tests.small import make_method
from utils.errors import UserError


class TestMiniBatch(MethodContract):
    name, same_level = "cirkd_minibatch", True


class TestCIRKD(MethodContract):
    name, same_level = "cirkd", True

    def make_identity(self, method: Method) -> None:
        """In its place: with its ReLU the head cannot be one for maps of either sign."""
        assert isinstance(method, CIRKD)
        method.projection = torch.nn.Identity()


def pixels(maps: Array) -> Array:
    """[B, C, h, w] -> [B, h * w, C] at L2 norm 1."""
    vectors = maps.reshape(*maps.shape[:2], -1).transpose(0, 2, 1)
    return vectors / np.linalg.norm(vectors, axis=2, keepdims=True)


def row_kl_array(student: Array, teacher: Array, temperature: float) -> float:
    """Mean over the rows."""
    log_p, log_q = (log_softmax(relations / temperature, axis=1) for relations in (student, teacher))
    return float((np.exp(log_q) * (log_q - log_p)).sum(axis=1).mean())


def golden_batch(student: Array, teacher: Array, temperature: float) -> float:
    s, t = pixels(resize_array(student, teacher.shape[2:])), pixels(teacher)
    pairs = list(np.ndindex(len(s), len(s)))
    return float(np.mean([row_kl_array(s[i] @ s[j].T, t[i] @ t[j].T, temperature) for i, j in pairs]))


@pytest.mark.parametrize("layer", ["e2", "e5"])
@pytest.mark.parametrize("kind", STUDENTS)
def test_mini_batch_has_its_golden_value(kind: str, layer: str) -> None:
    channels, (student, teacher) = STUDENTS[kind][0], student_and_teacher(kind)
    method = make_method(f"cirkd_minibatch,layers={layer},temperature=0.2,weight=3", channels, TEACHER)
    expected = 3 * golden_batch(stage_array(student, layer), stage_array(teacher, layer), 0.2)
    assert method(student, teacher, random_batch())[layer].item() == pytest.approx(expected, rel=1e-4)


def test_maps_are_averaged_to_at_most_16_patches_in_a_row() -> None:
    maps = torch.randn(2, 3, 32, 20, generator=torch.Generator().manual_seed(0))
    averaged = maps.unflatten(2, (16, 2)).unflatten(4, (10, 2)).mean(dim=(3, 5))
    assert image_relations(maps).shape == (2 * 160, 2, 160)
    torch.testing.assert_close(image_relations(maps), image_relations(averaged))


def golden_projection(maps: Array, method: CIRKD) -> Array:
    first, last = method.projection.get_submodule("0"), method.projection.get_submodule("3")
    return convolve_array(np.maximum(normalise_array(convolve_array(maps, first)), 0), last)


@pytest.mark.parametrize("kind", STUDENTS)
def test_all_terms_have_their_golden_values(kind: str) -> None:
    """Of a map this small, every pixel enters the memory, and all of the memory is compared."""
    channels, (student, teacher) = STUDENTS[kind][0], student_and_teacher(kind)
    method = make_method("cirkd", channels, TEACHER)
    assert isinstance(method, CIRKD)
    batch = random_batch()
    t_map = stage_array(teacher, "e5")
    s_map = resize_array(golden_projection(stage_array(student, "e5"), method), t_map.shape[2:])
    s, t = pixels(s_map), pixels(t_map)
    labels = batch.mask.numpy()[:, [5, 16, 27]][:, :, [11, 35]].reshape(2, -1)
    means = np.array([t[i][labels[i] == k].mean(axis=0) for i in range(2) for k in np.unique(labels[i])])
    regions = means / np.linalg.norm(means, axis=1, keepdims=True)
    s, t = (vectors.reshape(-1, vectors.shape[2]) for vectors in (s, t))
    terms = method(student, teacher, batch)
    assert {name: value.item() for name, value in terms.items()} == {
        "batch": pytest.approx(golden_batch(stage_array(student, "e5"), t_map, 0.1), rel=1e-3),
        "pixel": pytest.approx(0.1 * row_kl_array(s @ t.T, t @ t.T, 0.1), rel=1e-3),
        "region": pytest.approx(0.1 * row_kl_array(s @ regions.T, t @ regions.T, 0.1), rel=1e-3),
    }


def test_logits_are_compared_without_a_projection() -> None:
    assert not list(make_method("cirkd,layer=logits", STUDENT, TEACHER).parameters())


def remembered(method: Method, name: str, label: int) -> Array:
    memory = method.get_submodule(name)
    assert isinstance(memory, Memory)
    return array(memory.vectors[label, : int(memory.added[label])])


def test_memory_holds_the_teachers_vectors_of_each_class() -> None:
    """A teacher that shows class 0 in its first channel and class 1 in its second."""
    batch = random_batch()
    batch.mask[:] = 0
    batch.mask[1, :, 24:] = 1
    teacher = random_features(TEACHER, TEACHER_SIZES, seed=2)
    e5 = torch.zeros(2, 9, 4, 8)
    e5[:, 0] = 2.0
    e5[1, 0, :, 4:], e5[1, 1, :, 4:] = 0.0, 5.0
    teacher = teacher._replace(encoder=(*teacher.encoder[:4], e5))
    method = make_method("cirkd", STUDENT, TEACHER)
    for _ in range(2):
        method(random_features(STUDENT, TEACHER_SIZES, seed=1), teacher, batch)
    for label, images in ((0, 2), (1, 1)):
        direction = np.eye(9)[label]
        for name, count in (("pixels", 2 * 16 * images), ("regions", 2 * images)):
            np.testing.assert_allclose(remembered(method, name, label), np.tile(direction, (count, 1)), atol=1e-6)


def numbered(*values: int) -> torch.Tensor:
    """Vectors that keep their number at L2 norm 1: as an angle in degrees."""
    angles = torch.deg2rad(torch.tensor(values, dtype=torch.float))
    return torch.stack((angles.cos(), angles.sin()), dim=1)


def numbers(vectors: torch.Tensor) -> list[int]:
    return sorted(torch.rad2deg(torch.atan2(vectors[:, 1], vectors[:, 0])).round().int().tolist())


def test_queue_wraps_around_and_keeps_the_newest() -> None:
    memory = Memory(classes=2, size=5, width=2)
    memory.add(0, 9 * numbered(1, 2, 3))
    memory.add(1, numbered(50))
    assert numbers(memory.draw(9)) == [1, 2, 3, 50]
    memory.add(0, numbered(4, 5, 6, 7))
    assert numbers(memory.draw(9)) == [3, 4, 5, 6, 7, 50]
    memory.add(0, numbered(*range(10, 22)))
    assert numbers(memory.draw(9)) == [17, 18, 19, 20, 21, 50]
    memory.add(0, numbered(30))
    assert numbers(memory.draw(9)) == [18, 19, 20, 21, 30, 50]
    torch.testing.assert_close(memory.draw(9).norm(dim=1), torch.ones(6))


def test_draws_are_different_vectors_of_every_class_by_the_global_seed() -> None:
    memory = Memory(classes=3, size=40, width=2)
    memory.add(0, numbered(*range(30)))
    memory.add(2, numbered(*range(60, 90)))
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(numbers(memory.draw(5)))
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 10 and sum(number < 30 for number in draws[0]) == 5


@pytest.mark.parametrize("option", ["pixel_memory=0", "region_memory=0", "layer=e6"])
def test_a_memory_needs_places_and_a_stage(option: str) -> None:
    with pytest.raises(UserError, match=option.partition("=")[2]):
        make_method(f"cirkd,{option}", STUDENT, TEACHER)


def test_a_resumed_run_remembers() -> None:
    student, teacher = random_features(STUDENT, TEACHER_SIZES, seed=1), random_features(TEACHER, TEACHER_SIZES, seed=2)
    interrupted, resumed = (make_method("cirkd,pixel_memory=7", STUDENT, TEACHER) for _ in range(2))
    for _ in range(3):
        interrupted(student, teacher, random_batch())
    resumed.load_state_dict(interrupted.state_dict())
    other = random_features(STUDENT, TEACHER_SIZES, seed=4)
    terms = []
    for method in (interrupted, resumed):
        torch.manual_seed(0)
        terms.append(method(other, teacher, random_batch()))
    assert terms[0] == terms[1]


def test_anchors_are_bounded() -> None:
    """The gradient of the memory's terms reaches no more pixels than take part."""
    sizes = (*TEACHER_SIZES[:4], (48, 48))
    student, teacher = random_features(TEACHER, sizes, seed=1), random_features(TEACHER, sizes, seed=2)
    method = make_method("cirkd", TEACHER, TEACHER)
    # Its batch norm would spread the gradient over all pixels.
    method.projection = torch.nn.Identity()
    method(student, teacher, random_batch())["pixel"].backward()
    gradient = student.encoder[4].grad
    assert gradient is not None and ANCHORS < 2 * 48 * 48
    assert gradient.abs().sum(dim=1).count_nonzero() == ANCHORS
