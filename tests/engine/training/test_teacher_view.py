"""Which options show a teacher something else than it was trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets.frame import Frame
from datasets.labels import LabelMap
from engine.options import DataOptions
from engine.segmenter import Segmenter
from engine.training.run import decide_data
from engine.training.teacher_view import other_view_note
from tests.small import SmallNetwork

TUMOR = LabelMap("tumor", ("tumor",), ((2,),), {"tumor": (1,)})


def teacher(frame: Frame, window: tuple[float, float] | None = (-200.0, 300.0)) -> Segmenter:
    return Segmenter(SmallNetwork(2), "small", "kits", TUMOR, frame, window)


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ({}, None),
        ({"size": 256}, "size 256, not 512"),  # The usual crop is 3/4 of each.
        ({"size": 256, "crop": 128}, "size 256, not 512, crop 128, not 192"),
        ({"size": 0}, "size 0, not 512"),
        ({"crop": 0}, "crop 512, not 384"),
        ({"crop": 384, "window": (-200.0, 300.0)}, None),
        ({"window": (-1000.0, 400.0), "crop": 256}, "window -1000 to 400, not -200 to 300, crop 256, not 384"),
    ],
)
def test_what_differs_from_the_teacher_s_training_is_named(given: dict[str, object], changed: str | None) -> None:
    of_teacher = teacher(Frame())
    note = other_view_note(decide_data(DataOptions(train_data_path=Path("x"), **given), of_teacher), of_teacher)
    assert (note is None) if changed is None else f"trained on: {changed}; leave these options out" in str(note)


def test_a_window_for_all_is_not_each_volume_s_own() -> None:
    of_teacher = teacher(Frame(0, 0), None)
    assert other_view_note(decide_data(DataOptions(), of_teacher), of_teacher) is None
    note = other_view_note(decide_data(DataOptions(window=(0.0, 90.0)), of_teacher), of_teacher)
    assert "window 0 to 90, not of each volume's own" in str(note)
