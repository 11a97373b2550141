"""Cutting the cases of conftest.py, and what that leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets.slicing.summary import SliceMakerSummary
from tests.data import cut_slices


def make(raw: Path, task: str = "tumor", **options: Any) -> SliceMakerSummary:
    return cut_slices(raw, raw.parent / "out", task=task, **options)


def on_disk(folder: Path) -> dict[str, set[int]]:
    slices: dict[str, set[int]] = {}
    for path in folder.glob("*.npz"):
        case, index = path.stem.split("_")
        slices.setdefault(case, set()).add(int(index))
    return slices
