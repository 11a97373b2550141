"""Hilbert distillation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from distillation.distiller import Distiller
from distillation.hilbert_curve import hilbert_order
from distillation.methods.hilbert import Hilbert
from distillation.teacher import NetworkTeacher
from networks.contract import Channels, Features
from tests.contracts.methods import MethodContract
from tests.golden.arrays import Array, array, assert_terms, make_identity, project_array, resize_array
from tests.golden.features import STUDENT, STUDENT_SIZES, TEACHER, TEACHER_SIZES, random_batch, random_features
from tests.small import TinyNetwork, TinyVolume, make_method
from utils.errors import UserError

BLOCK = 8
TEACHER3D = replace(TEACHER, block=BLOCK)
FORMS = ("hilbert", "hilbert,variable=true")


class TestHilbert(MethodContract):
    name = "hilbert"

    def test_only_same_level_methods_teach_nothing_to_a_copy_of_the_teacher(self) -> None:
        """A student of slices is no copy of a volumetric teacher; where a block is one slice its maps can be."""
        for form in FORMS:
            student = random_features(TEACHER, TEACHER_SIZES, seed=2)
            assert value(form, TEACHER, student, blocks(student, 1)) == pytest.approx(0, abs=1e-7)


def blocks(features: Features, depth: int, seed: int | None = None) -> Features:
    """A volumetric teacher's answer: each map repeated along the slices, plus noise."""
    draw = None if seed is None else torch.Generator().manual_seed(seed)

    def deepen(maps: torch.Tensor) -> torch.Tensor:
        deep = maps.detach().unsqueeze(2).repeat(1, 1, depth, 1, 1)
        return deep if draw is None else deep + torch.randn(deep.shape, generator=draw)

    encoder, decoder = (tuple(map(deepen, maps)) for maps in (features.encoder, features.decoder))
    return features._replace(block=Features(encoder, decoder, deepen(features.logits)))


def hilbert(form: str, student: Channels, teacher: Channels = TEACHER3D) -> Hilbert:
    torch.manual_seed(0)
    method = make_method(form, student, teacher)
    assert isinstance(method, Hilbert)
    return method


def value(form: str, channels: Channels, student: Features, teacher: Features) -> float:
    """Of a student whose projection is the identity."""
    method = hilbert(form, channels)
    make_identity(method.transforms["e3"])
    return method(student, teacher, random_batch())["e3"].item()


def ordered(maps: Array) -> Array:
    return maps.reshape(*maps.shape[:2], -1)[:, :, hilbert_order(maps.shape[2:], torch.device("cpu")).numpy()]


def at_places(sequence: Array, places: Array) -> Array:
    """[C, n] at places [m], linearly."""
    return np.stack([np.interp(places, np.arange(len(row)), row) for row in sequence])


def equal_shares_array(activities: Array, count: int) -> Array:
    """Places that divide the area under a step function [n] into equal parts, from its integral's inverse."""
    edges = np.concatenate([[0], np.cumsum(activities)]) / activities.sum()
    places = np.interp((np.arange(count) + 0.5) / count, edges, np.arange(len(edges)))
    return np.clip(places - 0.5, 0, len(activities) - 1)


def activity_array(maps: Array) -> Array:
    """[B, C, ...] -> [B, 1, ...]."""
    peak = np.abs(maps).reshape(len(maps), -1).max(axis=1).reshape(-1, *[1] * (maps.ndim - 1))
    return ((maps / peak) ** 4).mean(axis=1, keepdims=True) + 1e-6


def smooth_l1_of_directions(s: Array, t: Array) -> float:
    s, t = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (s, t))
    gap = np.abs(s - t)
    return float(np.where(gap < 1, 0.5 * gap**2, gap - 0.5).mean())


@pytest.mark.parametrize("layer", ["e3", "d4", "logits"])
@pytest.mark.parametrize("variable", [False, True])
def test_value_is_the_golden_one(layer: str, variable: bool) -> None:
    student, teacher = random_features(STUDENT, STUDENT_SIZES, seed=1), random_features(TEACHER, TEACHER_SIZES, seed=2)
    teacher = blocks(teacher, 3, seed=5)
    method = hilbert(f"hilbert,weight=0.3,layers={layer},variable={str(variable).lower()}", STUDENT)
    s, t = array(student.stage(layer)), array(teacher.block.stage(layer))
    if layer != "logits":
        s = project_array(s, method.transforms[layer])
    on_slice, on_block, count = ordered(s), ordered(t), s.shape[2] * s.shape[3]
    if variable:
        active = activity_array(t)
        depth = min((BLOCK - 1) // 2 // TEACHER.stage(layer).stride, 2)
        in_slice = ordered(resize_array(active[:, :, depth], s.shape[2:]))[:, 0]
        of_block = ordered(active)[:, 0]
        of_slice = [equal_shares_array(a, count) for a in in_slice]
        on_slice = np.stack([at_places(x, p) for x, p in zip(on_slice, of_slice, strict=True)])
        places = [equal_shares_array(a, count) for a in of_block]
    else:
        n = on_block.shape[2]
        places = [np.clip((np.arange(count) + 0.5) * n / count - 0.5, 0, n - 1)] * 2
    on_block = np.stack([at_places(x, p) for x, p in zip(on_block, places, strict=True)])
    expected = 0.3 * smooth_l1_of_directions(on_slice, on_block)
    assert_terms(method(student, teacher, random_batch()), {layer: expected}, rel=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_maps_that_are_the_same_everywhere_teach_nothing(form: str) -> None:
    draw = torch.Generator().manual_seed(0)
    vector = torch.randn(1, TEACHER.encoder[2], 1, 1, generator=draw)
    student, teacher = (
        random_features(channels, sizes, seed=1)._replace(encoder=(vector.expand(2, -1, *sizes[2]),) * 5)
        for channels, sizes in ((TEACHER, STUDENT_SIZES), (TEACHER, TEACHER_SIZES))
    )
    assert value(form, TEACHER, student, blocks(teacher, 4)) == pytest.approx(0, abs=1e-7)


def test_constant_activity_gives_the_plain_form() -> None:
    """Of the same numbers everywhere, in other channels."""
    student = random_features(TEACHER, STUDENT_SIZES, seed=1)
    teacher = blocks(random_features(TEACHER, TEACHER_SIZES, seed=2), 4, seed=3)
    numbers = tuple(1.0 + maps.argsort(dim=1) for maps in teacher.block.encoder)
    teacher = teacher._replace(block=teacher.block._replace(encoder=numbers))
    plain, variable = (value(form, TEACHER, student, teacher) for form in FORMS)
    assert plain > 1e-3 and variable == pytest.approx(plain, rel=1e-4)


def test_the_variable_form_looks_longer_where_the_teacher_is_active() -> None:
    """A student that is wrong in one place: it counts more where the teacher's activity is."""
    size = TEACHER_SIZES[2]
    encoder = torch.ones(2, TEACHER.encoder[2], *size)
    encoder[:, :, :2] *= 4
    errors = []
    for rows in (slice(0, 2), slice(3, 5)):
        wrong = encoder.clone()
        wrong[:, 0, rows] *= -1
        teacher, student = (
            random_features(TEACHER, TEACHER_SIZES, seed=1)._replace(encoder=(maps,) * 5) for maps in (encoder, wrong)
        )
        plain, variable = (value(form, TEACHER, student, blocks(teacher, 1)) for form in FORMS)
        errors.append(variable / plain)
    assert errors[0] > 1.5 and errors[1] < 0.5


def test_a_teacher_of_single_slices_is_refused_in_one_sentence() -> None:
    with pytest.raises(UserError, match="hilbert compares blocks of slices, and this teacher sees single") as error:
        make_method("kd hilbert", STUDENT, TEACHER)
    assert "\n" not in str(error.value)


def test_a_volumetric_student_is_refused() -> None:
    shape = ((4, 4, 5, 6, 7), (), 2, 2)
    student, teacher = TinyVolume(*shape), TinyNetwork(*shape)
    method = make_method("kd", student.channels, teacher.channels)
    with pytest.raises(UserError, match="a volumetric network cannot be the student"):
        Distiller(student, NetworkTeacher(teacher), method)


@pytest.mark.parametrize("form", FORMS)
def test_its_equation_names_the_stages(form: str) -> None:
    assert hilbert(form, STUDENT).equation() == "0.1 Hilbert(t_e3 -> s_e3)"
