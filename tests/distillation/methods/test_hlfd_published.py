"""HLFD as published, against NumPy, its random convolutions drawn again from the same seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest
import torch

from distillation.distiller import Distiller
from distillation.teacher import NetworkTeacher
from networks.contract import Channels
from tests.contracts.methods import PAIRS, MethodContract, seeded_terms, tiny_distiller
from tests.golden.arrays import (
    Array,
    assert_terms,
    attention_array,
    kl_sum_array,
    project_array,
    resize_array,
    stage_array,
)
from tests.golden.features import (
    IMAGE_SIZE,
    STUDENT,
    STUDENT_SIZES,
    TEACHER,
    random_batch,
    random_features,
    student_and_teacher,
)
from tests.small import TinyNetwork, make_method


class TestHLFDPublished(MethodContract):
    name = "hlfd_published"


Stages = Callable[..., Array]


def golden(
    s: Stages, t: Stages, channels: Channels, upsampled: Callable[[Array], Array]
) -> Iterator[tuple[str, float]]:
    torch.manual_seed(5)
    s_d5 = upsampled(s("d5"))
    unified = torch.nn.Conv2d(sum(TEACHER.decoder[:3]), channels.stage("d5").channels, kernel_size=1)
    t_low = resize_array(project_array(t("d5", "d4", "d3"), unified), s_d5.shape[2:])
    yield "pmd_unified", 0.1 * 0.5 * kl_sum_array(s_d5, t_low) / (t_low.size / 2)
    for name in ("d4", "d3", "d2"):
        projection = torch.nn.Conv2d(channels.stage(name).channels, 2, kernel_size=1)
        projected = resize_array(project_array(upsampled(s(name)), projection), IMAGE_SIZE)
        yield f"pmd_{name}", 0.1 * 0.5 * kl_sum_array(projected, t("logits")) / (t("logits").size / 2)
    t_high = resize_array(t("e2", "e3", "e4"), s("e1").shape[2:])
    yield "imd_unified", 0.9 * 0.5 * attention_array(s("e1"), t_high)
    for name in ("e2", "e3", "e4"):
        yield f"imd_{name}", 0.9 * 0.5 * attention_array(s(name), t("e5"))


@pytest.mark.parametrize("has_decoder", [True, False])
def test_terms_are_golden(has_decoder: bool) -> None:
    """The stages of a student without a decoder are upsampled to the input."""
    student, teacher = student_and_teacher()
    channels = STUDENT
    if not has_decoder:
        channels = replace(STUDENT, decoder=())
        student = student._replace(decoder=student.encoder[3::-1])
    upsampled = partial(resize_array, size=IMAGE_SIZE, align_corners=True)
    stages = (partial(stage_array, features) for features in (student, teacher))
    expected = dict(golden(*stages, channels, (lambda x: x) if has_decoder else upsampled))
    torch.manual_seed(5)
    assert_terms(make_method("hlfd_published", channels, TEACHER)(student, teacher, random_batch()), expected)


def test_a_student_without_a_decoder_is_upsampled_under_autocast_too() -> None:
    task = tiny_distiller("hlfd_published", "as resnet_18 and raunet").eval()
    exact = seeded_terms(task)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = seeded_terms(task)
    assert terms["pmd_d4"].item() == pytest.approx(exact["pmd_d4"].item(), rel=0.05)


def test_projections_are_fresh_and_never_trained() -> None:
    student = random_features(STUDENT, STUDENT_SIZES, seed=1)
    method = make_method("hlfd_published", STUDENT, STUDENT)
    first, second = (method(student, student, random_batch())["pmd_d4"] for _ in range(2))
    assert first.item() != second.item()
    assert not list(method.parameters())


def test_equation_is_its_own() -> None:
    corrected, published = (make_method(name, STUDENT, TEACHER).equation() for name in ("hlfd", "hlfd_published"))
    renamed = corrected.replace("KL", "KL_published").replace("AT", "AT_published")
    assert published.startswith(f"{renamed}, where KL_published = (2 / channels) KL after a new random 1x1")


@pytest.mark.parametrize(
    ("methods", "detached"),
    [("hlfd", False), ("hlfd at", False), ("hlfd_published", True), ("at:3 hlfd_published", True)],
)
def test_the_focal_factor_is_detached_and_the_equation_says_so(methods: str, detached: bool) -> None:
    student, teacher = (TinyNetwork(*shape, classes=2) for shape in PAIRS["unequal"])
    task = Distiller(student, NetworkTeacher(teacher), make_method(methods, student.channels, teacher.channels))
    assert task.method.focal_detached == detached
    assert ("0.5 focal (p_t detached) + 0.5 (1 - Dice) + " in task.equation()) == detached
