"""Numbers as a user types them, within bounds: types for argparse, and annotations for options.

`batch_size: PositiveInt = 8` says to a reader, to mypy and to a parser what is allowed.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Annotated


def int_from(least: int) -> Callable[[str], int]:
    """An argparse type: an integer, `least` or more."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"must be an integer of at least {least}, not {text}")
        return value

    return parse


def float_in(
    least: float = -math.inf, most: float = math.inf, *, above: float = -math.inf, below: float = math.inf
) -> Callable[[str], float]:
    """An argparse type: a finite number within these bounds."""
    limits = [
        f"{words} {bound:g}"
        for words, bound in (("at least", least), ("above", above), ("below", below), ("at most", most))
        if math.isfinite(bound)
    ]

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and least <= value <= most and above < value < below):
            raise argparse.ArgumentTypeError(f"must be a number {' and '.join(limits)}".rstrip() + f", not {text}")
        return value

    return parse


PositiveInt = Annotated[int, int_from(1)]
NonNegativeInt = Annotated[int, int_from(0)]
Number = Annotated[float, float_in()]
Positive = Annotated[float, float_in(above=0)]
NonNegative = Annotated[float, float_in(0)]
Share = Annotated[float, float_in(0, below=1)]
ClosedShare = Annotated[float, float_in(0, 1)]
PositiveShare = Annotated[float, float_in(above=0, most=1)]
