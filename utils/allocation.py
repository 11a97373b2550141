"""What becomes of memory that was freed."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# GNU's, from malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
MEBIBYTE = 2**20


@contextmanager
def freed_memory_kept(keep: bool = True) -> Iterator[None]:
    """Inside, this process keeps what it frees, and uses it again; afterwards it gives it back. Nothing without `keep`.

    By default GNU's C library gives blocks above 32 MiB back to the system as soon as they are freed. A training step
    on a CPU frees gigabytes of them, and the system then zeroes the same pages for the next step: measured by
    `scripts/bench_memory.py`. Nothing is changed where the user has said what becomes of memory.
    """
    kept = keep and keep_freed_memory()
    try:
        yield
    finally:
        if kept:
            give_back_freed_memory()


def keep_freed_memory() -> bool:
    """Whether it could be said: not to another C library, nor where the user has said something."""
    library = _gnu_library()
    # No block of its own for anything; -1 is no threshold at all.
    return library is not None and bool(library.mallopt(MMAP_MAX, 0) and library.mallopt(TRIM_THRESHOLD, -1))


def give_back_freed_memory() -> None:
    """Now and from now on, as the library does after its first few large blocks."""
    if library := _gnu_library():
        for setting in ((MMAP_MAX, 65536), (MMAP_THRESHOLD, 32 * MEBIBYTE), (TRIM_THRESHOLD, 64 * MEBIBYTE)):
            library.mallopt(*setting)
        library.malloc_trim(0)


def _gnu_library() -> ctypes.CDLL | None:
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    chosen = "glibc.malloc." in tunables or any(name.startswith("MALLOC_") for name in os.environ)
    if chosen or not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
