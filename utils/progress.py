"""Progress bars on stderr, for work that takes longer than a second."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def print_line(text: str) -> None:
    """Print a line at once, above any bar that is shown."""
    tqdm.write(text)
    sys.stdout.flush()


def print_note(text: str) -> None:
    """Print a note on stderr, above any bar that is shown."""
    tqdm.write(f"note: {text}", file=sys.stderr)


class Bar(tqdm):  # type: ignore[misc]
    """Cleared at its end also where a printed line has shown it before its time, as tqdm does not.

    The error that ends its work would stand on its line otherwise.
    """

    shown = False

    def display(self, *args: Any, **options: Any) -> Any:
        self.shown = True
        return super().display(*args, **options)

    def close(self) -> None:
        if self.shown and not self.disable:
            self.clear()
        super().close()


def progress(items: Iterable[T], text: str, *, total: int | None = None, initial: int = 0, unit: str = "it") -> tqdm[T]:
    """`items` with a bar that appears after a second and is cleared at the end; initial: how many were done before."""
    return Bar(items, desc=text, total=total, initial=initial, unit=unit, delay=1.0, leave=False, dynamic_ncols=True)
