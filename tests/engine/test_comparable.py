"""Which networks can stand side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datasets.frame import Frame
from datasets.labels import organ_and_tumor
from engine.comparable import refuse_another_kind
from engine.segmenter import Segmenter
from tests.small import SmallNetwork
from utils.errors import UserError

FIRST = Segmenter(SmallNetwork(2), "small", "kits", organ_and_tumor()["tumor"], Frame(32, 0), (-200.0, 300.0))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"label_map": organ_and_tumor()["organ"]}, "task"),
        ({"label_map": replace(FIRST.label_map, labels=((1,),))}, "list of labels"),
        ({"dataset": "lits"}, "data set"),
        ({"channel": 1}, "channel"),
        ({"hounsfield": False}, "unit"),
        ({"window": (0.0, 1.0)}, "window"),
    ],
)
def test_what_differs_is_named(change: dict[str, Any], what: str) -> None:
    paths = Path("other.ckpt"), Path("first.ckpt")
    other = replace(FIRST, **change)
    with pytest.raises(UserError, match=rf"other\.ckpt: its {what} is .*, and that of first\.ckpt is .*; give others"):
        refuse_another_kind(other, paths[0], FIRST, paths[1], "give others")
    refuse_another_kind(replace(FIRST, frame=Frame(64, 0)), paths[0], FIRST, paths[1], "give others")
    if what != "task":
        refuse_another_kind(other, paths[0], FIRST, paths[1], "give others", but=[what])
