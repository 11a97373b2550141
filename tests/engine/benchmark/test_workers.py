"""Pieces of work in several processes: one that fails, or dies, ends alone."""

from __future__ import annotations

import operator
import os
import time
from collections.abc import Callable
from functools import partial

import pytest

from engine.benchmark.workers import run_all


class Deadly:
    """Kills the process that receives it."""

    def __reduce__(self) -> tuple[Callable[[int], None], tuple[int]]:
        return os._exit, (1,)

    def __call__(self, piece: object) -> None:
        """Never reached."""


def test_processes_that_die_before_they_begin_are_reported() -> None:
    for _, failure in run_all(range(3), Deadly(), jobs=2):
        assert "its process died" in str(failure)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_piece_of_work_that_fails_ends_alone(jobs: int) -> None:
    work = [partial(time.sleep, 0), partial(time.sleep, -1), partial(time.sleep, 0)]
    if jobs > 1:
        work.insert(1, partial(os._exit, 1))
    ended = dict(run_all(work, operator.call, jobs))
    assert ended[work[0]] is None and ended[work[-1]] is None
    assert ended[work[-2]] == "ValueError: sleep length must be non-negative"
    assert jobs == 1 or "its process died" in str(ended[work[1]])
