"""Progress bars on stderr, for work that takes longer than a second."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def print_line(text: str) -> None:
    """Print a line at once, above any bar that is shown."""
    tqdm.write(text)
    sys.stdout.flush()


def print_note(text: str) -> None:
    """Print a note on stderr, above any bar that is shown."""
    tqdm.write(f"note: {text}", file=sys.stderr)


def close_bars() -> None:
    """Clear the bars of work that an error has ended, so that what is printed next has a line of its own."""
    for bar in list(tqdm._instances):
        # A line above it shows a bar before its time, which `close` does not know of.
        bar.clear()
        bar.close()


def progress(items: Iterable[T], text: str, *, total: int | None = None, initial: int = 0, unit: str = "it") -> tqdm[T]:
    """`items` with a bar that appears after a second and is cleared at the end; initial: how many were done before."""
    return tqdm(items, desc=text, total=total, initial=initial, unit=unit, delay=1.0, leave=False, dynamic_ncols=True)
