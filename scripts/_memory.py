"""The memory of processes and of all that they have started, as Linux reports it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def descendants(process: str) -> list[str]:
    """The numbers of all processes that one has started, and that these have; process: its number, or "self"."""
    found = []
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            direct = children.read_text().split()
            found += [each for child in direct for each in (child, *descendants(child))]
    return found


def peak_memory(process: str) -> float:
    """The largest resident memory of a process so far, in MiB; 0 if it has ended or the system does not report it."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0
