"""The timer of cutting: its ways, and that it compares what they write."""

from __future__ import annotations

from pathlib import Path

from tests.commands import in_process, output_of
from tests.data import ct_and_label, kits_case


def test_the_ways_that_are_named_are_timed_and_compared(tmp_path: Path) -> None:
    for number in range(2):
        kits_case(tmp_path, number)
    ways = ("published", "target", "all", "isal", "nibabel")
    words = ("--inpath", tmp_path, "--workers", 1, "--repeats", 1, "--ways", *ways)
    lines = output_of(in_process("scripts/bench_slicemaker.py", *words)).splitlines()
    assert lines[0].split() == ["way", "seconds", "MiB", "x", "isal"]
    assert [line.split()[0] for line in lines[1:6]] == list(ways)
    assert all(float(number) >= 0 for line in lines[1:6] for number in line.split()[1:])
    total = 2 * len(ct_and_label()[0])
    assert [line.partition(":")[0] for line in lines[6:]] == ["target", "all"]
    assert lines[7].startswith(f"all: of {total} slices")
