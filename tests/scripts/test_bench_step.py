"""The step timer."""

from __future__ import annotations

from tests.commands import error_of, in_process, output_of

SMALL = ("--size", 32, "--repeats", 1, "--smodel", "malunet", "--model", "unet_r18")


def test_a_device_that_does_not_exist() -> None:
    line = error_of(in_process("scripts/bench_step.py", "--device", "nonsense"))
    assert line.startswith("error: --device nonsense cannot be used here")


def test_steps_are_timed_against_a_teacher_s_pass_and_a_plain_step() -> None:
    printed = output_of(in_process("scripts/bench_step.py", *SMALL, "--kd", "hlfd", "kd:0.5", "--classes", 4))
    lines = printed.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["teacher", "hlfd", "kd:0.5"]
    assert all(" ms   x " in line for line in lines[:3]) and "x 1.000" in lines[0]
    assert lines[3].startswith("over 2 times the baseline: ")


def test_earlier_spellings_of_its_flags_work() -> None:
    words = ("--size", 32, "--repeats", 1, "--student", "malunet", "--teacher", "unet_r18", "--batch", 2)
    assert "kd " in output_of(in_process("scripts/bench_step.py", *words, "--kd", "kd"))
