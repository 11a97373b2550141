"""Freed memory is kept, unless the user has said what becomes of it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from utils.allocation import give_back_freed_memory, keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

said = keep_freed_memory()
if sys.argv[1] == "give back":
    give_back_freed_memory()
for turn in range(20):
    if turn == 10:  # It has found its place.
        before = faults()
    torch.ones(2**24)
print(said, faults() - before)
"""
pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is said to GNU's C library")


def said_and_faults(ways: str, **variables: str) -> tuple[str, int]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", PROGRAM, ways]
    done = subprocess.run(command, env=clean | variables, capture_output=True, text=True, check=True)
    said, faults = done.stdout.split()
    return said, int(faults)


def test_a_block_that_was_freed_is_used_again() -> None:
    (said, kept), (also_said, given_back) = said_and_faults("keep"), said_and_faults("give back")
    assert said == also_said == "True"
    assert kept < given_back / 10


def test_what_the_user_said_stays() -> None:
    said, faults = said_and_faults("keep", MALLOC_TRIM_THRESHOLD_="131072")
    assert said == "False"
    assert faults > 1000
