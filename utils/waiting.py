"""How threads that compute wait for one another."""

from __future__ import annotations

import os

SPINS = 1000
"""Turns of an empty loop, some microseconds: about what waking a thread costs."""


def spin_briefly() -> None:
    """Let OpenMP's threads sleep soon when they wait, unless the user has said how; to call before torch is loaded.

    By default GNU's OpenMP, which PyTorch comes with, lets them spin for milliseconds, so that as soon as anything else
    runs on the machine they take the core from the thread that they wait for. `scripts/bench_threads.py` measures it.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
