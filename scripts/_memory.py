"""What commands cost, and the memory of processes as Linux reports it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import _root

from utils.errors import UserError

SAMPLED = 0.02  # seconds from one look at the memory to the next


class Cost(NamedTuple):
    """Of a command: seconds by the clock and of the processor, and the peak of memory in MiB.

    The memory is that of all its processes together, 0 where the system does not report it.
    """

    seconds: float
    processor: float
    mebibytes: float


def spend(script: str, *words: object, **environment: str) -> Cost:
    """Run a script of this repository to its end; UserError with the last that it said if that is not a good one.

    environment: variables beside those that are set.
    """
    command = [sys.executable, str(_root.ROOT / script), *map(str, words)]
    start, peak = time.perf_counter(), 0.0
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "TQDM_DISABLE": "1", **environment}
        )
        while True:
            number, status, usage = os.wait4(process.pid, os.WNOHANG)
            if number:
                break
            own = str(process.pid)
            peak = max(peak, sum(peak_memory(each) for each in (own, *started_by(own))))
            time.sleep(SAMPLED)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            said = log.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise UserError(f"{script} failed: {said or _ending(process.returncode)}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, peak)


def started_by(process: str) -> list[str]:
    """The numbers of all processes that one has started, and these in their turn; process: its number, or "self".

    Until a child starts its program, it shows the command line and the memory of its parent, and is left out.
    """
    own = _command_line(process)
    return [child for child in _descendants(process) if _command_line(child) not in (own, b"")]


def peak_memory(process: str) -> float:
    """The largest resident memory of a process so far, in MiB; 0 if it has ended or the system does not report it."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _ending(returncode: int) -> str:
    return f"ended by signal {-returncode}" if returncode < 0 else f"ended with status {returncode}"


def _descendants(process: str) -> Iterator[str]:
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in children.read_text().split():
                yield child
                yield from _descendants(child)


def _command_line(process: str) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""
