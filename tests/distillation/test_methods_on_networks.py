"""One step of every method on real networks, in half precision, as train_kd.py takes it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch

from distillation import METHODS, build_method
from distillation.segmentation_loss import segmentation_loss
from distillation.task import Distiller
from networks import build
from networks.contract import Channels, SegmentationNetwork
from tests.contracts.methods import gradients, own_terms, random_batch

PAIRS = [("malunet", "raunet"), ("enet", "segformer"), ("resnet_18", "unet"), ("segformer", "deeplabv3plus")]
"""Students and teachers with other strides, widths and normalisation; e5 and the decoder differ most."""
EACH = 2
"""On how many pairs a method is tried."""
SIZE = (64, 96)
"""The least at which e5 of stride 32 has two patches for the methods that compare patches."""

Build = Callable[[str, int], SegmentationNetwork]


def different_methods() -> list[str]:
    """Without names for the defaults of another."""
    channels = Channels((4,) * 5, (4,) * 4, 2)
    first: dict[str, str] = {}
    for name in METHODS:
        first.setdefault(build_method([name], channels, channels).definition(), name)
    return list(first.values())


def cases() -> list[tuple[str, str, str]]:
    """Each method with `EACH` of the pairs in turn."""
    chosen = []
    for number, name in enumerate(different_methods()):
        chosen += [(name, *PAIRS[(number + i) % len(PAIRS)]) for i in range(EACH)]
    return chosen


@pytest.fixture(scope="module")
def build_once() -> Build:
    @cache
    def network(name: str, classes: int) -> SegmentationNetwork:
        torch.manual_seed(0)
        return build(name, classes)

    return network


@pytest.mark.parametrize(("name", "of_student", "of_teacher"), cases())
def test_a_step_in_half_precision_teaches_all_of_the_student_and_nothing_to_the_teacher(
    name: str, of_student: str, of_teacher: str, build_once: Build
) -> None:
    # Two logits have the same z-scores whatever they are: it takes three classes to teach.
    classes = 3 if name == "lskd" else 2
    student, teacher = (build_once(each, classes) for each in (of_student, of_teacher))
    # RKD compares distances: among two images there is only one.
    batch = random_batch(classes, count=3 if name == "rkd" else 2, size=SIZE)
    torch.manual_seed(0)
    task = Distiller(student, teacher, build_method([name], student.channels, teacher.channels)).train()
    task.prepare([batch])
    task.teacher.requires_grad_(True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.manual_seed(1)
        terms = task(batch)
        torch.manual_seed(1)
        logits = task.network(batch.image)
    masks = segmentation_loss(logits.float(), batch.mask, task.method.focal_detached)
    supervised, own, whole = (
        gradients(values, task.network) for values in (masks.values(), own_terms(terms), [terms["loss"]])
    )
    assert all(value.isfinite() for value in terms.values())
    assert all(gradient.isfinite().all() for gradient in whole.values())
    assert own[next(iter(own))].any()
    assert {each for each in supervised if supervised[each].any()} <= {each for each in whole if whole[each].any()}
    terms["loss"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in task.method.parameters())
    assert all(p.grad is None for p in task.teacher.parameters())
    task.zero_grad()
