"""Growth with the number of cases: each command is run and measured, and what a further case costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.commands import in_process, output_of
from tests.paths import SCRIPTS

COMMANDS = ["SliceMaker", "an epoch", "evaluation"]


def test_every_command_is_measured_and_drawn(tmp_path: Path) -> None:
    small = ("--size", 32, "--slices", 4, "--train_size", 32, "--model", "enet")
    words = ("--cases", 5, "--raw", tmp_path / "raw", "--outpath", tmp_path / "growth.png")
    lines = output_of(in_process("scripts/bench_growth.py", *small, *words)).splitlines()
    assert [line[:12].strip() for line in lines[1:]] == COMMANDS
    for line in lines[1:]:
        cases, *measured = map(float, line[12:].split())
        assert cases == 5 and len(measured) == 3 and min(measured) > 0
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "raw").glob("case_*"))) == 5


@pytest.fixture
def growth(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_growth

    return bench_growth


def test_a_further_case_costs_the_difference(growth: Any) -> None:
    seconds, mebibytes = growth.further(10, growth.Cost(9.0, 2.0, 100.0), 40, growth.Cost(9.0, 8.0, 103.0))
    assert seconds == pytest.approx(0.2) and mebibytes == pytest.approx(0.1)
