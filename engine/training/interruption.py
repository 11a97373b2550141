"""Ctrl-C and SIGTERM between two steps."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from utils.across import ranks


@dataclass
class Interruption:
    """Whether the user, or a scheduler, asked to stop."""

    requested: bool = False


@contextmanager
def stop_between_steps(interruption: Interruption) -> Iterator[None]:
    """The first signal is noted, so that the step at hand is finished before anything is saved; a second one kills.

    Of several processes it does not: a terminal sends Ctrl-C to all, and torchrun passes it on to them once more.
    """

    def note(number: int, frame: object) -> None:
        interruption.requested = True
        if ranks() == 1:
            signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
