"""The memory of processes, as Linux reports it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


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
