"""Worker processes: all results, whatever their order, and one line if a worker is killed."""

from __future__ import annotations

import os
import signal

import pytest

from utils.errors import UserError
from utils.parallel import run_in_processes


def square(number: int) -> int:
    return number * number


def own_process(_: int) -> int:
    return os.getpid()


def fail_at_two(number: int) -> int:
    if number == 2:
        raise UserError("2: is refused")
    return number


def kill_own_process(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 2])
def test_gives_each_item_with_its_result(workers: int) -> None:
    assert dict(run_in_processes(square, [1, 2, 3], workers)) == {1: 1, 2: 4, 3: 9}


@pytest.mark.parametrize(("items", "workers"), [([1], 4), ([1, 2], 1)])
def test_starts_no_process_for_one_worker_or_one_item(items: list[int], workers: int) -> None:
    assert {process for _, process in run_in_processes(own_process, items, workers)} == {os.getpid()}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_stops_the_run(workers: int) -> None:
    with pytest.raises(UserError, match="2: is refused"):
        list(run_in_processes(fail_at_two, [1, 2, 3], workers))


def test_a_killed_worker_is_one_line() -> None:
    with pytest.raises(UserError, match=r"a worker process was killed, .*; give fewer --workers"):
        list(run_in_processes(kill_own_process, [1, 2], 2))
