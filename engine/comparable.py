"""Whether networks can stand side by side."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from engine.segmenter import Segmenter
from utils.errors import UserError


def refuse_another_kind(
    segmenter: Segmenter, path: Path, first: Segmenter, of_first: Path, advice: str, but: Collection[str] = ()
) -> None:
    """UserError, with what to do, unless a network tells the same classes from the same kind of images as the first.

    but: what may differ.
    """
    mine, its = _kind(segmenter), _kind(first)
    for what, value in mine.items():
        if what not in but and value != its[what]:
            raise UserError(f"{path}: its {what} is {value}, and that of {of_first} is {its[what]}; {advice}")


def _kind(segmenter: Segmenter) -> dict[str, object]:
    return {
        "task": segmenter.label_map.name,
        "list of classes": segmenter.label_map.classes,
        "list of labels": segmenter.label_map.labels,
        "data set": segmenter.dataset,
        "channel": segmenter.channel,
        "unit": "HU" if segmenter.hounsfield else "none, as of MR",
        "window": segmenter.window,
    }
