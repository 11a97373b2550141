"""Attention transfer."""

from __future__ import annotations

import numpy as np
import pytest

from tests.contracts.methods import MethodContract
from tests.golden.arrays import assert_terms, resize_array, stage_array
from tests.golden.features import STUDENTS, TEACHER, random_batch, student_and_teacher
from tests.small import make_method


class TestAttentionTransfer(MethodContract):
    name, same_level = "at_paper", True


@pytest.mark.parametrize("kind", STUDENTS)
def test_value_is_the_golden_one(kind: str) -> None:
    channels, (student, teacher) = STUDENTS[kind][0], student_and_teacher(kind)

    def looked_at(maps: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        active = resize_array((maps**2).mean(axis=1, keepdims=True), size).reshape(len(maps), -1)
        return active / np.sqrt((active**2).sum(axis=1, keepdims=True))

    expected = {}
    for layer, pixels in {"e2": 56**2, "d4": 28**2}.items():
        s, t = stage_array(student, layer), stage_array(teacher, layer)
        size = t.shape[2:]
        expected[layer] = 7 * ((looked_at(s, size) - looked_at(t, size)) ** 2).sum(axis=1).mean() / pixels
    method = make_method("at_paper,weight=7,layers=e2+d4", channels, TEACHER)
    assert_terms(method(student, teacher, random_batch()), expected)


def test_the_authors_settings() -> None:
    sides = {"e2": 56, "e3": 28, "e4": 14, "e5": 7}
    stages = " + ".join(f"{1 / side**2:g} AT2(t_{stage} -> s_{stage})" for stage, side in sides.items())
    assert make_method("at_paper", TEACHER, TEACHER).equation() == f"1000 ({stages})"
