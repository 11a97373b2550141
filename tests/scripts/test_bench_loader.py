"""The loader's timer."""

from __future__ import annotations

from tests.commands import in_process, output_of


def test_every_way_is_timed() -> None:
    small = ("--count", 5, "--size", 32, "--batch_size", 2, "--repeats", 1)
    lines = output_of(in_process("scripts/bench_loader.py", *small, "--augment", "paper", "mild")).splitlines()
    ways = [line[:42].strip() for line in lines[1:]]
    assert ways[0] == "paper: from disk, one at a time" and ways[-1] == "from memory, raw"
    assert [way for way in ways if way.startswith("mild")] == [
        "mild: from disk, one at a time",
        "mild: from disk, in batches",
        "mild: into memory, the first epoch",
        "mild: from memory, ready",
    ]
    assert all(int(number) > 0 for line in lines[1:] for number in line[42:].split())
