"""What thousands of volumes would cost, from what a few cost."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from datasets.frame import Frame
from datasets.labels import organ_and_tumor
from tests.commands import in_process
from tests.data import kits_case
from tests.paths import SCRIPTS
from tests.small import save_untrained


def cells(line: str) -> list[float]:
    return [float(cell.replace(",", "")) for cell in line.strip("| \n").split(" | ")[1:]]


def test_tables_of_volumes_bounds_and_a_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        kits_case(tmp_path / "raw", number, (8, 64, 64))
    monkeypatch.syspath_prepend(SCRIPTS)
    ckpt = tmp_path / "best.ckpt"
    save_untrained(ckpt, organ_and_tumor()["tumor"], Frame(32, 28))
    words = (
        "--inpath",
        tmp_path / "raw",
        "--ckpt",
        ckpt,
        "--cases",
        3,
        "--steps",
        2,
        "--batch_size",
        2,
        "--model",
        "enet",
    )
    monkeypatch.setattr("sys.argv", ["scaling_costs.py", *map(str, words)])
    script: Any = import_module("scaling_costs")
    typed: list[str] = []

    def spend(name: str, *words: object) -> Any:
        """In this process, which has loaded PyTorch; every start takes 2 s, and every case 1 s."""
        done = in_process(name, *words)
        assert done.returncode == 0, done.stderr
        typed.append(name)
        work = 0 if "0 cut now" in done.stdout or "3 of 3 cases are done" in done.stdout else 3
        return script.Cost(3.0 + work, 2.0 + work, 1000.0)

    monkeypatch.setattr(script, "spend", spend)
    of_all = script.put_together  # Of 20,000 cases it takes seconds.
    monkeypatch.setattr(script, "put_together", lambda record, count, out: of_all(record, count // 100, out))
    script.main()
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    hours = [cells(line) for line in lines if line.startswith("| hours of one process, cpu")]
    assert hours == [[pytest.approx((2 + count) / 3600, rel=5e-3) for count in (200, 2000, 20000)]] * 3
    raw = sum(path.stat().st_size for path in (tmp_path / "raw").glob("case_0000[0-2]/*"))
    read = [cells(line) for line in lines if line.startswith("| GB read")]
    assert read[0][2] == pytest.approx(raw / 3 * 20000 / 1e9, rel=5e-3)
    bounds = {line.split(",")[0].strip("| "): cells(line) for line in lines if "MB/s each" in line}
    assert all(ten == pytest.approx(10 * one, rel=5e-3) for one, ten, _ in bounds.values())
    assert bounds["evaluate"][0] > bounds["SliceMaker"][0]
    steps = [line for line in lines if line.startswith(("| undistilled |", "| hlfd |"))]
    assert len(steps) == 2 and "a grid of 300 runs of 250 steps" in printed
    of_grid = 300 * sum(250 * step + rest for step, rest, _ in map(cells, steps)) / 2 / 3600
    told = re.search(r"([\d.]+) hours by the clock of one process", printed)
    assert told and float(told[1]) == pytest.approx(of_grid, abs=0.1, rel=0.01)
    records = [cells(line) for line in lines if line.startswith("| MB of that record")]
    assert len(records) == 2 and all(few < many < most for few, many, most in records)
    assert typed.count("scripts/SliceMaker.py") == 2
