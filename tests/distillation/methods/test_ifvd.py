"""IFVD."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from distillation.methods.ifvd import class_variation
from networks.contract import Channels
from tests.contracts.methods import MethodContract
from tests.golden.arrays import Array, resize_array, stage_array
from tests.golden.features import (
    STUDENT_SIZES,
    STUDENTS,
    TEACHER,
    TEACHER_SIZES,
    random_batch,
    random_features,
    student_and_teacher,
)
from tests.small import make_method


class TestIFVD(MethodContract):
    name, same_level = "ifvd", True


def golden_variation(maps: Array, mask: Array) -> Array:
    """Cosine of each pixel and the mean of its class in its image; the mask is read where the pixels' middles lie."""
    rows, columns = (
        ((np.arange(small) + 0.5) * large / small).astype(int)
        for small, large in zip(maps.shape[2:], mask.shape[1:], strict=True)
    )
    result = np.zeros((len(maps), *maps.shape[2:]))
    for image, labels in enumerate(mask[:, rows][:, :, columns]):
        for label in np.unique(labels):
            vectors = maps[image][:, labels == label]
            prototype = vectors.mean(axis=1)
            lengths = np.linalg.norm(vectors, axis=0) * np.linalg.norm(prototype)
            result[image][labels == label] = prototype @ vectors / lengths
    return result


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kind", STUDENTS)
def test_value_is_the_golden_one(kind: str, classes: int) -> None:
    channels, (student, teacher) = STUDENTS[kind][0], student_and_teacher(kind)
    batch = random_batch(classes)
    method = make_method("ifvd,layers=e2", *(replace(each, classes=classes) for each in (channels, TEACHER)))
    mask, t = batch.mask.numpy(), stage_array(teacher, "e2")
    s = resize_array(stage_array(student, "e2"), t.shape[2:])
    expected = 200 * np.square(golden_variation(s, mask) - golden_variation(t, mask)).mean()
    assert method(student, teacher, batch)["e2"].item() == pytest.approx(expected, rel=1e-4)


def test_a_class_without_a_pixel_changes_nothing() -> None:
    maps = random_features(TEACHER, TEACHER_SIZES, seed=1).encoder[2]
    mask = random_batch(2).mask
    torch.testing.assert_close(class_variation(maps, mask, classes=5), class_variation(maps, mask, classes=2))


def test_one_pixel_is_its_own_prototype() -> None:
    mask = torch.zeros(1, 3, 3, dtype=torch.uint8)
    mask[0, 1, 2] = 1
    maps = torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    variation = class_variation(maps, mask, classes=2)[0].view(3, 3)
    assert variation[1, 2].item() == pytest.approx(1)
    assert (variation[mask[0] == 0] < 0.99).all()


def test_what_tells_two_classes_apart_does_not_count() -> None:
    """The distance is about the inside of each class alone: a teacher that turns one of them is the same teacher."""
    channels = Channels((4,) * 5, (4,) * 4, 2)
    teacher = random_features(channels, STUDENT_SIZES, seed=1)
    batch = random_batch()._replace(mask=torch.zeros(2, 8, 12, dtype=torch.uint8))
    batch.mask[:, :, 6:] = 1
    e1 = teacher.encoder[0].detach()
    turned = torch.cat((e1[..., :6], e1[..., 6:].roll(1, dims=1)), dim=3)
    student = teacher._replace(encoder=(turned, *teacher.encoder[1:]))
    method = make_method("ifvd,layers=e1", channels, channels)
    other = random_features(channels, STUDENT_SIZES, seed=2)
    of_student, of_other = (method(each, teacher, batch)["e1"].item() for each in (student, other))
    assert of_student < 1e-6 * of_other
