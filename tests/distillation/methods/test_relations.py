"""SP, pair-wise distillation and RKD."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distillation import build_method
from distillation.affinities import nodes
from distillation.method import Method
from distillation.similarity import angles, offsets, relative_distances
from distillation.task import Distiller
from networks.contract import Features
from tests.contracts.methods import MethodContract, random_batch, tiny_distiller
from tests.golden.features import TEACHER, TEACHER_SIZES, Array, random_features, resize_array
from tests.golden.layers import STUDENTS, stage_array


class TestSP(MethodContract):
    name, same_level = "sp", True


class TestPairWise(MethodContract):
    name, same_level = "skd_pairwise", True

    def learner(self, pair: str) -> Distiller:
        """An e5 of 2 x 2 pixels is one node, which resembles only itself."""
        return tiny_distiller("skd_pairwise,granularity=1", pair)


class TestRKD(MethodContract):
    name, same_level, images = "rkd", True, 3
    # What tells three pictures of noise from each other is not much larger than the rounding.
    half_tolerance = 0.25


def values(method: Method, student: Features, teacher: Features) -> dict[str, float]:
    return {term: value.item() for term, value in method(student, teacher, random_batch()).items()}


def many_images(seed: int, count: int = 5) -> torch.Tensor:
    return torch.randn(count, 7, 3, 4, generator=torch.Generator().manual_seed(seed))


def rotated(maps: torch.Tensor) -> torch.Tensor:
    """The channels turned by a random orthogonal matrix."""
    draw = torch.Generator().manual_seed(9)
    rotation, _ = torch.linalg.qr(torch.randn(maps.shape[1], maps.shape[1], generator=draw))
    return torch.einsum("oc,bchw->bohw", rotation, maps)


def golden_similarity(maps: Array) -> Array:
    flat = maps.reshape(len(maps), -1)
    similarity = flat @ flat.T
    return similarity / np.linalg.norm(similarity, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", STUDENTS)
def test_sp_has_its_golden_value(kind: str) -> None:
    channels, sizes = STUDENTS[kind]
    student, teacher = random_features(channels, sizes, seed=1), random_features(TEACHER, TEACHER_SIZES, seed=2)
    method = build_method(["sp,weight=7,layers=e4+e5"], channels, TEACHER)
    expected = {}
    for layer in ("e4", "e5"):
        s, t = (golden_similarity(stage_array(features, layer)) for features in (student, teacher))
        expected[layer] = pytest.approx(7 * np.square(s - t).sum() / 2**2, rel=1e-4)
    assert values(method, student, teacher) == expected


def golden_nodes(maps: Array, patch: int) -> Array:
    """Maxima of patches, the last ones smaller where the map ends: [B, C, nodes]."""
    height, width = maps.shape[2:]
    patches = [
        maps[:, :, i : i + patch, j : j + patch].max(axis=(2, 3))
        for i in range(0, height, patch)
        for j in range(0, width, patch)
    ]
    return np.stack(patches, axis=2)


def golden_affinity(vectors: Array) -> Array:
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.einsum("bcn,bcm->bnm", vectors, vectors)


@pytest.mark.parametrize("granularity", [1, 2, 3])
@pytest.mark.parametrize("kind", STUDENTS)
def test_pair_wise_has_its_golden_value(kind: str, granularity: int) -> None:
    channels, sizes = STUDENTS[kind]
    student, teacher = random_features(channels, sizes, seed=1), random_features(TEACHER, TEACHER_SIZES, seed=2)
    method = build_method([f"skd_pairwise,layers=e3,granularity={granularity}"], channels, TEACHER)
    t = stage_array(teacher, "e3")
    s = resize_array(stage_array(student, "e3"), t.shape[2:])
    difference = golden_affinity(golden_nodes(s, granularity)) - golden_affinity(golden_nodes(t, granularity))
    assert values(method, student, teacher) == {"e3": pytest.approx(10 * np.square(difference).mean(), rel=1e-4)}


@pytest.mark.parametrize("name", ["sp", "skd_pairwise,granularity=1"])
def test_turned_channels_are_as_good_as_the_teachers(name: str) -> None:
    teacher = random_features(TEACHER, TEACHER_SIZES, seed=2)
    student = teacher._replace(encoder=tuple(map(rotated, teacher.encoder)))
    other = random_features(TEACHER, TEACHER_SIZES, seed=3)
    method = build_method([name], TEACHER, TEACHER)
    assert values(method, student, teacher) == {"e5": pytest.approx(0, abs=1e-6)}
    assert values(method, other, teacher)["e5"] > 0.1


@pytest.mark.parametrize(("size", "expected"), [((5, 7), (3, 4)), ((32, 20), (16, 10)), ((256, 100), (32, 13))])
def test_no_more_than_32_nodes_stand_in_a_row(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert nodes(torch.zeros(1, 2, *size), patch=2).shape[2:] == expected


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
def test_rkd_has_its_golden_values(count: int) -> None:
    any_features = random_features(TEACHER, TEACHER_SIZES, seed=2)
    s_maps, t_maps = 4 * many_images(1, count), many_images(2, count)[:, :6, :2]
    (s_distances, s_cosines), (t_distances, t_cosines) = (
        golden_relations(maps.double().numpy()) for maps in (s_maps, t_maps)
    )
    student, teacher = (with_e5(any_features, maps) for maps in (s_maps, t_maps))
    assert values(build_method(["rkd"], TEACHER, TEACHER), student, teacher) == {
        "distance_e5": pytest.approx(25 * huber(s_distances - t_distances), rel=1e-4),
        "angle_e5": pytest.approx(50 * huber(s_cosines - t_cosines), rel=1e-4),
    }


def test_rkd_sees_neither_scale_nor_shift_nor_rotation() -> None:
    ways, moved = offsets(many_images(1)), offsets(100 * rotated(many_images(1)) + 3)
    torch.testing.assert_close(relative_distances(moved), relative_distances(ways), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(angles(moved), angles(ways), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2])
def test_rkd_of_fewer_than_three_images_is_0(count: int) -> None:
    any_features = random_features(TEACHER, TEACHER_SIZES, seed=2)
    student, teacher = (with_e5(any_features, many_images(seed, count)) for seed in (1, 2))
    terms = values(build_method(["rkd"], TEACHER, TEACHER), student, teacher)
    assert terms == {"distance_e5": pytest.approx(0, abs=1e-6), "angle_e5": pytest.approx(0, abs=1e-6)}
