"""Similarity-preserving distillation."""

from __future__ import annotations

import numpy as np
import pytest

from tests.contracts.methods import MethodContract
from tests.golden.arrays import Array, assert_terms, stage_array
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


class TestSP(MethodContract):
    name, same_level = "sp", True


def golden_similarity(maps: Array) -> Array:
    flat = maps.reshape(len(maps), -1)
    similarity = flat @ flat.T
    return similarity / np.linalg.norm(similarity, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", STUDENTS)
def test_terms_are_golden(kind: str) -> None:
    student, teacher = student_and_teacher(kind)
    method = make_method("sp,weight=7,layers=e4+e5", STUDENTS[kind][0], TEACHER)
    expected = {}
    for layer in ("e4", "e5"):
        s, t = (golden_similarity(stage_array(features, layer)) for features in (student, teacher))
        expected[layer] = 7 * np.square(s - t).sum() / (64 * 2)
    assert_terms(method(student, teacher, random_batch()), expected, rel=1e-4)


def test_rotated_channels_are_as_good_as_the_teachers() -> None:
    teacher, other = (random_features(TEACHER, TEACHER_SIZES, seed) for seed in (2, 3))
    student = teacher._replace(encoder=tuple(map(rotate_channels, teacher.encoder)))
    method = make_method("sp", TEACHER, TEACHER)
    of_student, of_other = (method(each, teacher, random_batch())["e5"].item() for each in (student, other))
    assert of_student < 1e-5 * of_other
