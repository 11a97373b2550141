"""Progress bars, on stderr, only for what takes longer than a moment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], text: str, *, total: int | None = None, unit: str = "it") -> tqdm[T]:
    """`items` with a bar that appears after a second and clears itself when done."""
    return tqdm(items, desc=text, total=total, unit=unit, delay=1.0, leave=False, dynamic_ncols=True)
