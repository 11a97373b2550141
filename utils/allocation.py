"""What becomes of memory that was freed."""

from __future__ import annotations

import ctypes
import os
import sys

# GNU's, from malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
MEBIBYTE = 2**20


def keep_freed_memory(keep: bool = True) -> bool:
    """Let this process keep what it frees, and use it again; whether it could be said, or was the user's to say.

    By default GNU's C library gives blocks above 32 MiB back to the system as soon as they are freed. A training step
    on a CPU frees gigabytes of them, and the system then zeroes the same pages for the next step: measured by
    `scripts/bench_memory.py`. With `keep` False it gives them back again, as it does after its first few steps.
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ
    if chosen or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # Another C library.
        return False
    if keep:
        # No block of its own for anything; -1 is no threshold at all.
        return bool(mallopt(MMAP_MAX, 0) and mallopt(TRIM_THRESHOLD, -1))
    return bool(
        mallopt(MMAP_MAX, 65536) and mallopt(MMAP_THRESHOLD, 32 * MEBIBYTE) and mallopt(TRIM_THRESHOLD, 64 * MEBIBYTE)
    )
