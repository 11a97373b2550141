"""Work in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from utils.ahead import ahead


def test_items_come_in_order_and_at_most_as_many_ahead_as_asked_for() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    for number in ahead(items(), depth=2):
        assert number <= made[-1] <= number + 2
    assert made == list(range(20))
    assert list(ahead([])) == []


def test_an_error_comes_after_what_was_made_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("the second")

    taken = ahead(items())
    assert next(taken) == 1
    with pytest.raises(ValueError, match="the second"):
        next(taken)


def test_the_thread_ends_with_an_iteration_that_is_left() -> None:
    before = threading.active_count()
    for number in ahead(iter(int, 1)):
        if number == 0:
            break
    assert threading.active_count() == before
