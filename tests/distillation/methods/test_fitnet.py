"""FitNet."""

from __future__ import annotations

import pytest

from tests.contracts.methods import MethodContract
from tests.golden.arrays import assert_terms, project_array, resize_array, stage_array
from tests.golden.features import STUDENTS, TEACHER, random_batch, student_and_teacher
from tests.small import make_method


class TestFitNet(MethodContract):
    name, same_level = "fitnet", True


@pytest.mark.parametrize("layer", ["e3", "d4", "logits"])
@pytest.mark.parametrize("kind", STUDENTS)
def test_value_is_the_golden_one(kind: str, layer: str) -> None:
    channels, (student, teacher) = STUDENTS[kind][0], student_and_teacher(kind)
    method = make_method(f"fitnet,weight=0.3,layers={layer}", channels, TEACHER)
    s, t = stage_array(student, layer), stage_array(teacher, layer)
    regressed = resize_array(project_array(s, method.get_submodule(f"transforms.{layer}")), t.shape[2:])
    assert_terms(method(student, teacher, random_batch()), {layer: 0.3 * ((regressed - t) ** 2).mean()})


def test_a_hint_comes_from_the_middle_and_is_regressed_only_where_counts_differ() -> None:
    assert make_method("fitnet", TEACHER, TEACHER).equation() == "MSE(t_e3 -> s_e3)"
    student, _ = STUDENTS["unequal"]
    regressors = make_method("fitnet,layers=e3+e4", student, TEACHER).state_dict()
    assert {name: value.shape[:2] for name, value in regressors.items() if "weight" in name} == {
        "transforms.e4.weight": (8, 6)
    }
