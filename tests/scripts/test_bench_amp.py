"""scripts/bench_amp.py on small images."""

from __future__ import annotations

from tests.commands import in_process, output_of


def test_networks_are_timed_in_both() -> None:
    small = ("--size", 32, "--batch_size", 2, "--repeats", 1)
    names = ("malunet", "segresnet3d", "resnet_18")
    head, *rows = output_of(in_process("scripts/bench_amp.py", "--models", *names, *small)).splitlines()
    assert head.split() == ["step,", "s", "bf16", "ratio", "forward,", "s", "bf16", "ratio"]
    assert [row.split()[0] for row in rows] == ["malunet", "resnet_18"]  # No network of blocks.
    assert all(float(cell) >= 0 for row in rows for cell in row.split()[1:])
