"""Deciding in the frame, and carrying only what decides back, gives what the probabilities at full size give."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.frame import Frame
from datasets.labels import LabelMap
from engine.prediction.volume import keep_largest, largest_components
from engine.segmenter import Segmenter, class_probabilities
from tests.small import SmallNetwork


def segmenter(classes: int, frame: Frame, offsets: tuple[float, ...] = ()) -> Segmenter:
    names = tuple("abc"[: classes - 1])
    regions = {name: (index,) for index, name in enumerate(names, start=1)}
    label_map = LabelMap("all", names, tuple((index,) for index in range(1, classes)), regions)
    torch.manual_seed(0)
    return Segmenter(SmallNetwork(classes), "small", "kits", label_map, frame, (-200.0, 300.0), offsets)


def smooth_probabilities(classes: int, side: int, count: int = 5) -> Tensor:
    """With regions of every class; the second slice is background alone."""
    draws = torch.Generator().manual_seed(1)
    logits = F.interpolate(3 * torch.randn(count, classes, 6, 6, generator=draws), (side, side), mode="bicubic")
    logits[1, 0] += 50
    return logits.softmax(dim=1)


@pytest.mark.parametrize("threshold", [None, 0.3])
@pytest.mark.parametrize(("classes", "offsets"), [(2, ()), (2, (1.2,)), (4, ()), (4, (0.5, -1.0, 2.0))])
@pytest.mark.parametrize(
    ("frame", "shape"), [(Frame(48, 36), (80, 70)), (Frame(48, 0), (48, 48)), (Frame(0, 40), (32, 64))]
)
def test_deciding_in_the_frame(
    classes: int, offsets: tuple[float, ...], threshold: float | None, frame: Frame, shape: tuple[int, int]
) -> None:
    decides = segmenter(classes, frame, offsets)
    probabilities = smooth_probabilities(classes, frame.side)
    plain = decides.decide(frame.back(probabilities, shape), threshold)
    found = decides.decide_framed(probabilities, shape, threshold)
    assert found.dtype == np.uint8 and set(np.unique(plain)) == set(range(classes))
    assert not found[1].any()
    assert (found != plain).mean() < 1e-4


@pytest.mark.parametrize("classes", [2, 3])
def test_a_volume_is_decided_as_its_batches_are(classes: int) -> None:
    decides = segmenter(classes, Frame(48, 36))
    image = np.random.default_rng(0).integers(-300, 400, (7, 60, 50)).astype(np.int16)
    window = (-200.0, 300.0)
    plain = [decides.decide(each) for _, each in decides.probabilities(image, window, 3)]
    for batch_size in (3, 7):
        assert (decides.segment(image, window, batch_size) != np.concatenate(plain)).mean() < 1e-3
    assert decides.network.training


def test_two_classes_have_the_probabilities_of_softmax() -> None:
    logits = torch.tensor([[0.0, 0.0], [4.0, -3.0], [-200.0, 100.0], [1000.0, 0.0]]).view(4, 2, 1, 1)
    assert torch.allclose(class_probabilities(logits), logits.softmax(dim=1), atol=1e-7)
    assert math.isclose(float(class_probabilities(logits)[1, 1]), float(logits.softmax(dim=1)[1, 1]), rel_tol=1e-5)


def test_the_largest_components_are_those_of_the_whole_volume() -> None:
    classes = (np.random.default_rng(0).random((12, 30, 30)) > 0.93).astype(np.uint8) * 2
    classes[:3] = 0
    classes[5:8, 4:9, 4:9] = 1
    expected = classes * largest_components(classes > 0, 2)
    keep_largest(classes, 2)
    assert np.array_equal(classes, expected) and set(np.unique(classes)) == {0, 1, 2}
    empty = np.zeros((3, 4, 5), np.uint8)
    keep_largest(empty, 1)
    assert not empty.any()
