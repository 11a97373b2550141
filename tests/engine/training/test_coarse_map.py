"""The note on networks that predict from a coarse map."""

from __future__ import annotations

import pytest

from datasets.frame import Frame
from datasets.labels import LabelMap
from engine.segmenter import Segmenter
from engine.training.coarse_map import coarse_map_note
from networks import build

ORGAN = LabelMap("organ", ("organ",), ((1,),), {"organ": (1,)})


def note(model: str, size: int, crop: int | None = 0) -> str | None:
    return coarse_map_note(Segmenter(build(model, 2), model, "lits", ORGAN, Frame(size, crop), (-40.0, 160.0)))


@pytest.mark.parametrize(
    ("model", "size", "crop", "says"),
    [
        ("resnet_18", 128, 0, "at 128 pixels resnet_18 predicts from a map of 4 x 4"),
        ("resnet_18", 128, None, "at 96 pixels resnet_18 predicts from a map of 3 x 3"),
        ("resnet_18", 225, 0, "predicts from a map of 8 x 8, of which the best possible one has a Dice of about 0.94"),
        ("resnet_18", 48, 0, "from a map of 2 x 2, of which the best possible one has a Dice of less than "),
        ("resnet_18", 96, 0, "; resnet_18_os8 sees better"),
        ("resnet_34", 96, 0, "; resnet_34_os8 sees better"),
        ("mobilenet_v2", 96, 0, "; resnet_18_os8 sees better"),
    ],
)
def test_a_coarse_map_is_noted(model: str, size: int, crop: int | None, says: str) -> None:
    said = note(model, size, crop)
    assert said is not None and says in said


@pytest.mark.parametrize(
    ("model", "size", "crop"),
    [
        ("resnet_18", 256, 0),
        ("resnet_18", 512, None),
        ("resnet_18", 0, 0),
        ("resnet_18_os8", 96, 0),
        ("unet_r18", 96, 0),
    ],
)
def test_maps_that_are_fine_enough_are_not(model: str, size: int, crop: int | None) -> None:
    assert note(model, size, crop) is None
