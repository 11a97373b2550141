"""What the viewer gets of a case: decoded here as the page's script does it."""

from __future__ import annotations

import base64
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.report import viewer_case
from engine.report.viewer_case import TRUTH, ViewerCase, crop_box, pack_case
from tests.engine.report.pages import WINDOW, labelled_case


def unpack(case: ViewerCase) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """Values and layers."""
    content = zlib.decompress(base64.b64decode(case.payload))
    shape = case.description["shape"]
    size, (low, high) = int(np.prod(shape)), case.description["range"]
    grey = np.frombuffer(content, np.uint8, size).reshape(shape)
    layers, start = {}, size
    for name, count in case.description["runs"].items():
        words = np.frombuffer(content, "<u4", count, start)
        layers[name] = np.repeat(words >> 24, words & 0xFFFFFF).reshape(shape)
        start += 4 * count
    assert start == len(content)
    return low + grey / 255 * (high - low), layers


def test_images_and_masks_come_back() -> None:
    case = labelled_case("1")
    shifted = np.roll(case.label, 5, axis=2)
    packed = pack_case(case, {TRUTH: case.label, "student": shifted}, WINDOW, hounsfield=True, oriented=True)
    values, layers = unpack(packed)
    box = crop_box(case.label, shifted)
    assert [part.start for part in box] == [0, 0, 0] and values.shape == case.image[box].shape
    assert np.abs(values - case.image[box].clip(-200, 300)).max() <= 0.5 * 500 / 255
    assert (layers[TRUTH] == case.label[box]).all() and (layers["student"] == shifted[box]).all()
    assert packed.description["start"] == 4 and packed.description["pixel_mm2"] == pytest.approx(0.64)


def test_the_crop_has_a_margin_and_follows_predictions() -> None:
    label = np.zeros((40, 200, 200), np.uint8)
    label[10:12, 100, 90:95] = 1
    assert crop_box(label) == (slice(7, 15), slice(76, 125), slice(66, 119))
    far = np.zeros_like(label)
    far[39, 0, 199] = 2
    assert crop_box(label, far) == (slice(7, 40), slice(0, 125), slice(66, 200))
    assert crop_box(np.zeros_like(label)) == (slice(0, 40), slice(0, 200), slice(0, 200))


def test_values_that_span_less_are_stored_more_finely() -> None:
    case = labelled_case("1")
    saturated = replace(case, image=case.image.clip(0, 255))
    packed = pack_case(saturated, {TRUTH: case.label}, WINDOW, hounsfield=True, oriented=True)
    assert packed.description["range"] == (0, saturated.image.max())
    assert (unpack(packed)[0].round() == saturated.image[crop_box(case.label)]).all()


def test_a_case_that_is_too_large_loses_pixels_not_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    case = labelled_case("1")
    whole = pack_case(case, {TRUTH: case.label}, WINDOW, hounsfield=True, oriented=True)
    monkeypatch.setattr(viewer_case, "MOST_BYTES", len(whole.payload) // 3)
    packed = pack_case(case, {TRUTH: case.label}, WINDOW, hounsfield=True, oriented=True)
    assert len(packed.payload) <= len(whole.payload) // 3 and packed.description["step"] == 2
    assert (unpack(packed)[1][TRUTH] == case.label[crop_box(case.label)][:, ::2, ::2]).all()
