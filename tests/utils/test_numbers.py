"""Numbers as a user types them."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from utils.numbers import Interval, float_in, int_from, interval


def test_numbers_within_bounds_are_read() -> None:
    assert int_from(1)("3") == 3
    assert float_in()("-1e3") == -1000
    assert float_in(0, below=1)("0") == 0
    assert float_in(above=0)("1e-9") == 1e-9


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (int_from(1), "0", "must be an integer of at least 1, not 0"),
        (int_from(0), "1.5", "must be an integer of at least 0, not 1.5"),
        (float_in(above=0), "0", "must be a number above 0, not 0"),
        (float_in(0, below=1), "1", "must be a number at least 0 and below 1, not 1"),
        (interval, "10 hours", "must be steps, as in 500, or minutes, as in 10min, not 10 hours"),
        (interval, "0", "must be steps, as in 500, or minutes, as in 10min, not 0"),
        (interval, "-1min", "must be steps, as in 500, or minutes, as in 10min, not -1min"),
        (float_in(), "inf", "must be a number, not inf"),
        (float_in(0), "nan", "must be a number at least 0, not nan"),
        (float_in(0), "x", "must be a number at least 0, not x"),
    ],
)
def test_others_are_refused_with_the_bounds(read: Callable[[str], float], text: str, message: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as error:
        read(text)
    assert str(error.value) == message


def test_an_interval_is_steps_or_minutes() -> None:
    assert [str(interval(text)) for text in ("500", "10min", "0.5 min")] == ["500", "10min", "0.5min"]
    steps, minutes = Interval(steps=3), Interval(minutes=2)
    assert [steps.is_over(step, 1e9) for step in (2, 3, 4, 6)] == [False, True, False, True]
    assert [minutes.is_over(3, seconds) for seconds in (119, 120)] == [False, True]
