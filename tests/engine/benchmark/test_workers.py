"""Pieces of work in several processes: one that fails, or dies, ends alone."""

from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from engine.benchmark.workers import run_all
from tests.paths import ROOT


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


def note_and_wait(file: Path) -> None:
    """Leave this process's number in a file, and be busy for long."""
    file.write_text(str(os.getpid()))
    time.sleep(100)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("call", ["workers.run_all(files, note, 2)", "parallel.run_in_processes(note, files, 2)"])
def test_a_killed_command_leaves_no_process_at_its_files(tmp_path: Path, call: str) -> None:
    """Neither a benchmark nor SliceMaker, for the same command may continue them at once."""
    files = [tmp_path / "0", tmp_path / "1"]
    code = (
        "import sys; from pathlib import Path; from engine.benchmark import workers; from utils import parallel;"
        "from tests.engine.benchmark.test_workers import note_and_wait as note;"
        f"files = [Path(word) for word in sys.argv[1:]]; list({call})"
    )
    with subprocess.Popen([sys.executable, "-c", code, *map(str, files)], cwd=ROOT) as benchmark:
        until(lambda: all(file.exists() and file.read_text() for file in files))
        benchmark.send_signal(signal.SIGKILL)
    until(lambda: not any(is_alive(int(file.read_text())) for file in files))
