"""Networks that train in a moment, and what tests of a benchmark share."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from tests.small import SmallNetwork

TRAINING = ("--steps", 2, "--batch_size", 4, "--lr", 0.01, "--device", "cpu")

Command = Callable[..., None]


def tiny(classes: int, pretrained: bool) -> SmallNetwork:
    return SmallNetwork(classes)


def tiny_teacher(classes: int, pretrained: bool) -> SmallNetwork:
    return SmallNetwork(classes, width=6)


def table(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
