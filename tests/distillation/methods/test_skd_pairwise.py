"""Pair-wise distillation."""

from __future__ import annotations

import numpy as np
import pytest

from distillation.distiller import Distiller
from tests.contracts.methods import MethodContract, tiny_distiller
from tests.golden.arrays import Array, assert_terms, resize_array, stage_array
from tests.golden.features import (
    STUDENTS,
    TEACHER,
    TEACHER_SIZES,
    random_batch,
    random_features,
    rotate_channels,
    student_and_teacher,
)
from tests.small import make_method


class TestPairWise(MethodContract):
    name, same_level = "skd_pairwise", True

    def learner(self, pair: str) -> Distiller:
        """An e5 of 2 x 2 pixels is one patch, which resembles only itself."""
        return tiny_distiller("skd_pairwise,granularity=1", pair)


def golden_patches(maps: Array, patch: int) -> Array:
    """Maxima of patches, the last ones smaller where the map ends: [B, C, patches]."""
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
def test_term_is_golden(kind: str, granularity: int) -> None:
    student, teacher = student_and_teacher(kind)
    method = make_method(f"skd_pairwise,layers=e3,granularity={granularity}", STUDENTS[kind][0], TEACHER)
    t = stage_array(teacher, "e3")
    s = resize_array(stage_array(student, "e3"), t.shape[2:])
    difference = golden_affinity(golden_patches(s, granularity)) - golden_affinity(golden_patches(t, granularity))
    assert_terms(method(student, teacher, random_batch()), {"e3": 10 * np.square(difference).mean()}, rel=1e-4)


def test_rotated_channels_are_as_good_as_the_teachers() -> None:
    teacher, other = (random_features(TEACHER, TEACHER_SIZES, seed) for seed in (2, 3))
    student = teacher._replace(encoder=tuple(map(rotate_channels, teacher.encoder)))
    method = make_method("skd_pairwise,granularity=1", TEACHER, TEACHER)
    of_student, of_other = (method(each, teacher, random_batch())["e5"].item() for each in (student, other))
    assert of_student < 1e-5 * of_other
