"""Canonical feature distillation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from distillation.method import Method
from distillation.methods.canonical import Canonical, normalised_distance
from networks.contract import Channels, Features
from tests.contracts.methods import MethodContract
from tests.golden.arrays import Array, assert_terms, make_identity, project_array, resize_array, stage_array
from tests.golden.features import STUDENTS, TEACHER, random_batch, student_and_teacher
from tests.small import make_method


class TestCanonical(MethodContract):
    name, same_level = "canonical", True
    # Some channels of these untrained networks vary little more than they are rounded.
    half_tolerance = 0.25

    def make_identity(self, method: Method) -> None:
        assert isinstance(method, Canonical)
        make_identity(method.projector)


def z_scores(maps: Array) -> Array:
    deviation = maps.std(axis=(2, 3), keepdims=True)
    return (maps - maps.mean(axis=(2, 3), keepdims=True)) / deviation


def without_decoder(channels: Channels, features: Features) -> tuple[Channels, Features]:
    return replace(channels, decoder=()), features._replace(decoder=features.encoder[3::-1])


@pytest.mark.parametrize("stages", [("d2", "d2"), ("e5", "d2"), ("d2", "e5"), ("e5", "e5")])
@pytest.mark.parametrize("kind", STUDENTS)
def test_term_is_golden(kind: str, stages: tuple[str, str]) -> None:
    """e5 stands for d2 where there is no decoder."""
    sides = zip((STUDENTS[kind][0], TEACHER), student_and_teacher(kind), strict=True)
    (s_channels, student), (t_channels, teacher) = (
        without_decoder(*side) if stage == "e5" else side for side, stage in zip(sides, stages, strict=True)
    )
    method = make_method("canonical,weight=3", s_channels, t_channels)
    s, t = stage_array(student, stages[0]), stage_array(teacher, stages[1])
    s = resize_array(project_array(s, method.get_submodule("projector")), t.shape[2:])
    expected = 3 * ((z_scores(s) - z_scores(t)) ** 2).mean()
    assert_terms(method(student, teacher, random_batch()), {"features": expected}, rel=1e-4)
    assert method.equation() == f"3 NormalisedMSE(t_{stages[1]} -> s_{stages[0]})"


def test_scale_and_shift_of_a_channel_do_not_matter_and_constant_ones_are_0() -> None:
    student, teacher = (torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    plain = normalised_distance(student, teacher)
    changed = normalised_distance(student * torch.tensor([1.0, 9.0, 0.2]).view(3, 1, 1) - 7, teacher)
    torch.testing.assert_close(changed, plain, rtol=1e-4, atol=0)
    assert normalised_distance(student, -student).item() == pytest.approx(4)
    assert normalised_distance(torch.ones(2, 3, 4, 5), teacher).item() == pytest.approx(1)
