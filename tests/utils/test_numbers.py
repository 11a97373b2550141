"""Numbers as a user types them."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from utils.numbers import float_in, int_from


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
        (float_in(), "inf", "must be a number, not inf"),
        (float_in(0), "nan", "must be a number at least 0, not nan"),
        (float_in(0), "x", "must be a number at least 0, not x"),
    ],
)
def test_others_are_refused_with_the_bounds(read: Callable[[str], float], text: str, message: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as error:
        read(text)
    assert str(error.value) == message
