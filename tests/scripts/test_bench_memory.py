"""scripts/bench_memory.py on small images."""

from __future__ import annotations

import platform

import pytest

from tests.commands import error_of, in_process, output_of

SMALL = ("--smodel", "malunet", "--model", "resnet_18", "--kd", "kd", "--size", 32, "--repeats", 1)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is said to GNU's C library")
def test_both_ways_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    _, *rows = output_of(in_process("scripts/bench_memory.py", *SMALL)).splitlines()
    assert [row[30:44].strip() for row in rows] == ["given back", "kept"] * 2
    assert all(int(cell) >= 0 for row in rows for cell in row[44:].split())


def test_it_is_refused_where_it_cannot_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert "on a CPU only" in error_of(in_process("scripts/bench_memory.py", *SMALL))
