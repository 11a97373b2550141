"""Numbers as a user types them, within bounds: types for argparse, and annotations for options.

`batch_size: PositiveInt = 8` says to a reader, to mypy and to a parser what is allowed.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Interval:
    """So many steps, or so many minutes; the other one is None."""

    steps: int | None = None
    minutes: float | None = None

    def __str__(self) -> str:
        return f"{self.minutes:g}min" if self.steps is None else str(self.steps)

    def is_over(self, step: int, seconds: float) -> bool:
        """After `step` steps in all, and so many seconds since the last time."""
        if self.steps is not None:
            return step % self.steps == 0
        return self.minutes is not None and seconds >= 60 * self.minutes


def interval(text: str) -> Interval:
    """An argparse type: steps as in 500, or minutes as in 10min."""
    number, minutes, rest = text.strip().partition("min")
    try:
        if minutes and not rest:
            return Interval(minutes=float_in(above=0)(number))
        return Interval(steps=int_from(1)(text))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"must be steps, as in 500, or minutes, as in 10min, not {text}") from None


PositiveInt = Annotated[int, int_from(1)]
NonNegativeInt = Annotated[int, int_from(0)]
StepsOrMinutes = Annotated[Interval, interval]
Number = Annotated[float, float_in()]
Positive = Annotated[float, float_in(above=0)]
NonNegative = Annotated[float, float_in(0)]
Share = Annotated[float, float_in(0, below=1)]
ClosedShare = Annotated[float, float_in(0, 1)]
PositiveShare = Annotated[float, float_in(above=0, most=1)]
