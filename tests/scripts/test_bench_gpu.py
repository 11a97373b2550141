"""The checks and timings of `make gpu`, which run on a CPU in tiny sizes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch._C._autograd import DeviceType

from engine.gpu_check.carry_out import PARTS
from engine.gpu_check.setting import Row
from engine.gpu_check.timings import idle_share
from tests.commands import Done, error_of, in_process, output_of


def checked(outpath: Path, *parts: str) -> Done:
    return in_process("scripts/bench_gpu.py", "--device", "cpu", "--outpath", outpath, "--parts", *parts)


def test_checks_and_times_go_into_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.gpu_check.timings.U_NET", "malunet")
    printed = output_of(checked(tmp_path, "unet", "cache", "scaler"))
    table = (tmp_path / "gpu.md").read_text()
    assert "0 failed" in printed and "short True" in table
    assert "| mild: device cache as none | passed | equal |" in table
    assert "| an overflow in fp16 skips its step | skipped | needs a CUDA device |" in table
    for row in json.loads((tmp_path / "unet.json").read_text())["rows"]:
        assert row["outcome"] == "measured" and row["figures"]["images_per_second"] > 0
    # What is right comes first, whatever the order of the words.
    assert table.index("device cache") < table.index("U-Net")


def test_ours_and_the_published_way_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.gpu_check.timings.MODEL", "enet")
    output_of(checked(tmp_path, "speed_8"))
    rows = json.loads((tmp_path / "speed_8.json").read_text())["rows"]
    assert [row["name"].split(", ", 2)[-1] for row in rows[:3]] == [
        "as published",
        "as published, on one batch that is on the device",
        "ours",
    ]
    assert all(row["figures"]["slices_per_second"] > 0 and row["figures"]["share_of_peak"] > 0 for row in rows[:3])
    assert rows[3]["figures"]["ratio"] == pytest.approx(rows[2]["figures"]["ratio"])


def test_what_is_done_is_not_run_again_and_what_failed_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []

    def part(_: Any, name: str, outcome: Any) -> list[Row]:
        runs.append(name)
        if outcome is None:
            raise RuntimeError("CUDA error:\nno kernel image")
        return [Row(name, outcome, "so it is", {})]

    for name, outcome in (("amp", "passed"), ("scaler", "failed"), ("idle", None)):
        monkeypatch.setitem(PARTS, name, lambda setting, name=name, outcome=outcome: part(setting, name, outcome))
    done = checked(tmp_path, "amp", "scaler", "idle")
    assert done.returncode == 1 and "3 rows, 2 failed" in done.stdout
    assert "| idle | failed | RuntimeError: CUDA error: no kernel image |" in (tmp_path / "gpu.md").read_text()
    checked(tmp_path, "amp", "scaler", "idle")
    assert runs == ["amp", "scaler", "idle", "scaler", "idle"]
    content = json.loads((tmp_path / "amp.json").read_text())
    (tmp_path / "amp.json").write_text(json.dumps({**content, "about": {"torch": "another"}}))
    assert output_of(checked(tmp_path, "amp")) and runs[-1] == "amp" and len(runs) == 6


def test_mistakes(tmp_path: Path) -> None:
    assert error_of(checked(tmp_path, "nonsense")).startswith("error: --parts nonsense: choose from amp, scaler, ")
    (tmp_path / "scaler.json").write_text("{}")
    assert error_of(checked(tmp_path, "scaler")).endswith("scaler.json: is no result of this program; delete it")


def test_idle_is_what_no_kernel_covers() -> None:
    def event(start: int, end: int, device: DeviceType = DeviceType.CUDA) -> SimpleNamespace:
        return SimpleNamespace(device_type=device, time_range=SimpleNamespace(start=start, end=end))

    kernels = [event(10, 20), event(15, 30), event(40, 50), event(0, 100, DeviceType.CPU), event(41, 42)]
    assert idle_share(kernels) == pytest.approx(10 / 40)
    assert idle_share([event(0, 5), event(5, 9)]) == 0
