"""Relational knowledge distillation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distillation.methods.rkd import angles, image_offsets, relative_distances
from networks.contract import Features
from tests.contracts.methods import MethodContract
from tests.golden.arrays import Array, assert_terms
from tests.golden.features import TEACHER, TEACHER_SIZES, random_batch, random_features, rotate_channels
from tests.small import make_method


class TestRKD(MethodContract):
    name, same_level, images = "rkd", True, 3
    # What distinguishes three images of noise is not much larger than the rounding.
    half_tolerance = 0.25


def many_images(seed: int, count: int = 5) -> torch.Tensor:
    return torch.randn(count, 7, 3, 4, generator=torch.Generator().manual_seed(seed))


def huber(difference: Array) -> float:
    absolute = np.abs(difference)
    return float(np.where(absolute < 1, difference**2 / 2, absolute - 0.5).mean())


def golden_relations(maps: Array) -> tuple[Array, Array]:
    """Relative distances of every two images, and cosines of the angles at the first of every three."""
    embedded = maps.mean(axis=(2, 3))
    count = len(embedded)
    distances = np.array([[np.linalg.norm(a - b) for b in embedded] for a in embedded])
    cosines = np.zeros((count, count, count))
    for i, j, k in np.ndindex(cosines.shape):
        first, second = embedded[j] - embedded[i], embedded[k] - embedded[i]
        lengths = np.linalg.norm(first) * np.linalg.norm(second)
        cosines[i, j, k] = first @ second / lengths if lengths else 0
    return distances / distances[distances > 0].mean(), cosines


def with_e5(features: Features, maps: torch.Tensor) -> Features:
    return features._replace(encoder=(*features.encoder[:4], maps))


@pytest.mark.parametrize("count", [3, 5])
def test_terms_are_golden(count: int) -> None:
    any_features = random_features(TEACHER, TEACHER_SIZES, seed=2)
    s_maps, t_maps = 4 * many_images(1, count), many_images(2, count)[:, :6, :2]
    (s_distances, s_cosines), (t_distances, t_cosines) = (
        golden_relations(maps.double().numpy()) for maps in (s_maps, t_maps)
    )
    student, teacher = (with_e5(any_features, maps) for maps in (s_maps, t_maps))
    expected = {
        "distance_e5": 25 * huber(s_distances - t_distances),
        "angle_e5": 50 * huber(s_cosines - t_cosines),
    }
    assert_terms(make_method("rkd", TEACHER, TEACHER)(student, teacher, random_batch()), expected, rel=1e-4)


def test_scale_shift_and_rotation_do_not_matter() -> None:
    vectors, moved = image_offsets(many_images(1)), image_offsets(100 * rotate_channels(many_images(1)) + 3)
    torch.testing.assert_close(relative_distances(moved), relative_distances(vectors), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(angles(moved), angles(vectors), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2])
def test_terms_of_fewer_than_three_images_are_0(count: int) -> None:
    any_features = random_features(TEACHER, TEACHER_SIZES, seed=2)
    method, few, three = make_method("rkd", TEACHER, TEACHER), {}, {}
    for terms, images in ((few, count), (three, 3)):
        student, teacher = (with_e5(any_features, many_images(seed, images)) for seed in (1, 2))
        terms |= {term: value.item() for term, value in method(student, teacher, random_batch()).items()}
    assert list(few) == ["distance_e5", "angle_e5"]
    assert all(value < 1e-5 * three[term] for term, value in few.items())
