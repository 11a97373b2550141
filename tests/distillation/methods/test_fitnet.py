"""FitNet."""

from __future__ import annotations

import pytest
import torch

from distillation.method import Method
from tests.contracts.methods import MethodContract
from tests.golden.arrays import assert_terms, make_identity, project_array, resize_array, stage_array
from tests.golden.features import STUDENTS, TEACHER, random_batch, student_and_teacher
from tests.small import make_method


class TestFitNet(MethodContract):
    name, same_level = "fitnet", True

    def make_identity(self, method: Method) -> None:
        make_identity(method.get_submodule("transforms.e3"))


@pytest.mark.parametrize("layer", ["e3", "d4", "logits"])
@pytest.mark.parametrize("kind", STUDENTS)
def test_value_is_the_golden_one(kind: str, layer: str) -> None:
    channels, (student, teacher) = STUDENTS[kind][0], student_and_teacher(kind)
    method = make_method(f"fitnet,weight=0.3,layers={layer}", channels, TEACHER)
    s, t = stage_array(student, layer), stage_array(teacher, layer)
    regressor = torch.nn.Identity() if layer == "logits" else method.get_submodule(f"transforms.{layer}")
    regressed = resize_array(project_array(s, regressor), t.shape[2:])
    assert_terms(method(student, teacher, random_batch()), {layer: 0.3 * ((regressed - t) ** 2).mean()})


def test_a_hint_comes_from_the_middle_and_is_always_regressed() -> None:
    assert make_method("fitnet", TEACHER, TEACHER).equation() == "MSE(t_e3 -> s_e3)"
    student, _ = STUDENTS["unequal"]
    regressors = make_method("fitnet,layers=e3+e4+logits", student, TEACHER).state_dict()
    assert {name: value.shape[:2] for name, value in regressors.items() if "weight" in name} == {
        "transforms.e3.weight": (5, 5),
        "transforms.e4.weight": (8, 6),
    }
