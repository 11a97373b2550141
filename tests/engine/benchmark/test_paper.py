"""The paper's experiment with tiny networks on tiny phantoms, to its end."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from engine.benchmark.paper import LOSSES
from networks import NETWORKS
from phantoms.files import make_phantoms
from phantoms.recipe import Recipe
from tests.commands import error_of, in_process, output_of


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paper") / "raw"
    make_phantoms(folder, Recipe("kits", 0, 64, (6, 8)), cases=7)
    return folder


def words(raw: Path, out: Path) -> tuple[object, ...]:
    networks = ("--model", "tiny_teacher", "--smodel", "tiny", "--size", 64, "--crop", 0)
    length = ("--teacher_epochs", 1, "--epochs", 1, "--batch_size", 4, "--device", "cpu", "--workers", 0)
    return ("--inpath", raw, "--outpath", out, *networks, *length)


@pytest.fixture
def tiny_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tiny", "tiny_teacher"):
        monkeypatch.setitem(NETWORKS, name, f"tests.engine.benchmark.tiny:{name}")
    monkeypatch.setenv("TQDM_DISABLE", "1")


def test_all_losses_are_trained_and_shown_by_both_protocols(raw: Path, tmp_path: Path, tiny_networks: None) -> None:
    estimated = output_of(in_process("scripts/paper.py", *words(raw, tmp_path), "--estimate"))
    assert "7 cases; their slices take" in estimated and "Trainings take about" in estimated
    assert all(f"\n{name} " in estimated for name in (*LOSSES, "hlfd_published", "undistilled"))
    assert not (tmp_path / "benchmark").exists()

    output_of(in_process("scripts/paper.py", *words(raw, tmp_path)))
    with (tmp_path / "paper.csv").open(newline="") as file:
        rows = {row["network"]: row for row in csv.DictReader(file)}
    published = [f"tiny, {name} ({theirs})" for name, theirs in LOSSES.items()]
    assert list(rows) == ["teacher, tiny_teacher", "tiny, undistilled", *published, "tiny, hlfd_published"]
    text = (tmp_path / "paper.md").read_text()
    assert "published protocol: Dice" in text and "whole volumes: Dice" in text and "counts false positives" in text
    scores = {name for row in rows.values() for name, cell in row.items() if cell not in ("", "n/a")}
    assert {"published protocol: Dice", "whole volumes: Dice", "Dice by argmax"} <= scores

    trained = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("best.ckpt")}
    assert len(trained) == 9
    output_of(in_process("scripts/paper.py", *words(raw, tmp_path)))
    assert trained == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("best.ckpt")}


def test_a_disk_without_room_is_refused(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    assert "GB free, and the slices take" in error_of(in_process("scripts/paper.py", *words(raw, tmp_path)))
