"""Volumetric networks that teach, and that learn."""

from __future__ import annotations

import pytest
import torch

from distillation.distiller import Distiller, in_float32
from distillation.segmentation_loss import batch_loss
from distillation.task import SupervisedTask
from distillation.teacher import NetworkTeacher, VolumeTeacher, network_teacher
from networks.contract import STAGES
from tests.golden.arrays import assert_terms
from tests.golden.features import random_batch
from tests.small import TinyNetwork, TinyVolume, make_method
from utils.batch import Batch, middle

SHAPE = ((4, 4, 5, 6, 7), (6, 5, 4, 4), 2, 2)
BLOCK = 16


def volume() -> TinyVolume:
    torch.manual_seed(0)
    return TinyVolume(*SHAPE)


def test_a_network_is_the_teacher_that_it_can_be() -> None:
    assert type(network_teacher(TinyNetwork(*SHAPE))) is NetworkTeacher
    assert type(network_teacher(volume())) is VolumeTeacher


def test_it_answers_for_the_slice_in_the_middle_with_the_whole_block_beside_it() -> None:
    teacher, batch = VolumeTeacher(volume()), random_batch(block=BLOCK, size=(32, 32))
    features, whole = teacher.features(batch), teacher.network.features(batch.block.unsqueeze(1))
    for name in STAGES:
        maps, stride = whole.stage(name), teacher.channels.stage(name).stride
        assert torch.equal(features.block.stage(name), maps)
        assert torch.equal(features.stage(name), maps[:, :, middle(BLOCK) // stride]), name
    assert not features.logits.requires_grad


def test_without_the_slices_around_it_says_so() -> None:
    with pytest.raises(ValueError, match="needs the slices around each image"):
        VolumeTeacher(volume()).features(random_batch())


def test_the_blocks_maps_come_to_methods_in_float32() -> None:
    teacher, batch = VolumeTeacher(volume()), random_batch(block=BLOCK, size=(32, 32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = teacher.features(batch)
    assert features.block.logits.dtype == torch.bfloat16
    assert all(in_float32(features, True).block.stage(name).dtype == torch.float32 for name in STAGES)


@pytest.mark.parametrize("kd", ["kd", "fitnet,layers=e3+d4", "dist hilbert"])
def test_methods_for_slices_learn_from_it_too(kd: str) -> None:
    student, teacher = TinyNetwork(*SHAPE), VolumeTeacher(volume())
    task = Distiller(student, teacher, make_method(kd, student.channels, teacher.channels))
    terms = task(random_batch(block=BLOCK, size=(32, 32)))
    terms["loss"].backward()
    assert terms["loss"].isfinite() and all(p.grad is not None for p in student.parameters())


def test_the_slices_of_blocks_count_as_so_many_images() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 6, 5, generator=draw)
    mask, other = (torch.randint(0, 3, (2, 4, 6, 5), dtype=torch.uint8, generator=draw) for _ in range(2))
    image = torch.zeros(2, 1, 4, 6, 5)
    slices = [(i, j) for i in range(2) for j in range(4)]
    flat, *masks = (torch.stack([values[i][..., j, :, :] for i, j in slices]) for values in (logits, mask, other))
    found = batch_loss(logits, Batch(image, mask, ["a", "b"], other, 0.7))
    expected = batch_loss(flat, Batch(torch.zeros(8, 1, 6, 5), masks[0], ["a"] * 8, masks[1], 0.7))
    assert_terms(found, {term: value.item() for term, value in expected.items()})


def test_a_volumetric_network_learns_from_blocks() -> None:
    task = SupervisedTask(volume())
    image, mask = torch.randn(2, 1, 4, 32, 32), torch.ones(2, 4, 32, 32, dtype=torch.uint8)
    terms = task(Batch(image, mask, ["a", "b"]))
    terms["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())
