"""One step of every method on real networks, in half precision, as train_kd.py takes it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import pytest
import torch

from distillation import METHODS, parse_method, suits
from distillation.distiller import Distiller
from distillation.segmentation_loss import segmentation_loss
from distillation.teacher import network_teacher
from networks import build
from networks.contract import Channels, Features, SegmentationNetwork
from tests.contracts.methods import gradients
from tests.golden.features import TEACHER, random_batch
from tests.small import make_method
from utils.batch import Batch

PAIRS = [
    ("malunet", "raunet"),
    ("enet", "segformer"),
    ("mobilenet_v2", "unet"),
    ("smp/segformer/mit_b0", "deeplabv3plus"),
]
"""Students and teachers with other strides, widths and normalisation; e5 and the decoder differ most."""
VOLUMETRIC_PAIRS = [("malunet", "segresnet3d"), ("mobilenet_v2", "segresnet3d")]
PAIRS_EACH = 2
"""On how many pairs a method is tried."""
BATCH = random_batch(classes=3, count=3, size=(64, 96), block=4)
"""The least for all methods: RKD compares distances, of which two images have one; two logits have the same z-scores
whatever they are; and patches of an e5 of stride 32 are compared."""
OPTIONS = {"cirkd": "cirkd,pixel_memory=200,region_memory=20", "ktaad": "ktaad,steps=1"}
"""Cheaper than with their defaults."""


class StoredTeacher(NamedTuple):
    """Gives the same answers again, so that a network computes them once for all methods."""

    channels: Channels
    answers: Features

    def features(self, batch: Batch) -> Features:
        return self.answers


class Pair(NamedTuple):
    """supervised: the gradients of the student's parameters that learn from the masks."""

    student: SegmentationNetwork
    teacher: StoredTeacher
    supervised: dict[str, torch.Tensor]


def half_precision() -> torch.autocast:
    """With the same dropout in every pass."""
    torch.manual_seed(1)
    return torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def make_pair() -> Callable[[str, str], Pair]:
    @cache
    def pair(student_name: str, teacher_name: str) -> Pair:
        torch.manual_seed(0)
        student, teacher = build(student_name, classes=3).train(), network_teacher(build(teacher_name, classes=3))
        # The large networks are slow in half precision on a CPU: their answers are only rounded to it.
        answers = rounded(teacher.features(BATCH))
        with half_precision():
            logits = student(BATCH.image)
        learned = gradients(segmentation_loss(logits.float(), BATCH.mask).values(), student)
        supervised = {name: gradient for name, gradient in learned.items() if gradient.any()}
        return Pair(student, StoredTeacher(teacher.channels, answers), supervised)

    return pair


def rounded(exact: Features) -> Features:
    encoder, decoder = (tuple(m.bfloat16().float() for m in maps) for maps in (exact.encoder, exact.decoder))
    block = None if exact.block is None else rounded(exact.block)
    return Features(encoder, decoder, exact.logits.bfloat16().float(), block)


def cases() -> list[tuple[str, str, str]]:
    """Each method with `PAIRS_EACH` of the pairs in turn, and those that compare blocks with theirs."""
    of_slices = [name for name in METHODS if suits(parse_method(name), TEACHER)]
    pairs = {
        name: [PAIRS[(number + i) % len(PAIRS)] for i in range(PAIRS_EACH)] for number, name in enumerate(of_slices)
    }
    return [(name, *pair) for name in METHODS for pair in pairs.get(name, VOLUMETRIC_PAIRS)]


@pytest.mark.parametrize(("name", "student_name", "teacher_name"), cases())
def test_a_step_in_half_precision_teaches_all_of_the_student(
    name: str, student_name: str, teacher_name: str, make_pair: Callable[[str, str], Pair]
) -> None:
    student, teacher, supervised = make_pair(student_name, teacher_name)
    torch.manual_seed(0)
    task = Distiller(student, teacher, make_method(OPTIONS.get(name, name), student.channels, teacher.channels))
    task.train().prepare([BATCH])
    with half_precision():
        terms = task(BATCH)
    terms["loss"].backward()
    learned = {key: p.grad for key, p in student.named_parameters() if p.grad is not None}
    assert all(value.isfinite() for value in terms.values())
    assert all(gradient.isfinite().all() for gradient in learned.values())
    assert supervised.keys() <= {key for key, gradient in learned.items() if gradient.any()}
    first = next(iter(supervised))
    assert not torch.equal(learned[first], supervised[first])
    assert all(p.grad is None or p.grad.isfinite().all() for p in task.method.parameters())
    task.zero_grad()
