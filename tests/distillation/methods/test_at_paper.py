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
    for layer in ("e2", "d4"):
        s, t = stage_array(student, layer), stage_array(teacher, layer)
        size = t.shape[2:]
        expected[layer] = 7 * ((looked_at(s, size) - looked_at(t, size)) ** 2).mean()
    method = make_method("at_paper,weight=7,layers=e2+d4", channels, TEACHER)
    assert_terms(method(student, teacher, random_batch()), expected)


def test_the_authors_settings() -> None:
    stages = " + ".join(f"AT2(t_{stage} -> s_{stage})" for stage in ("e2", "e3", "e4", "e5"))
    assert make_method("at_paper", TEACHER, TEACHER).equation() == f"1000 ({stages})"
