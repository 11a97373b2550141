"""scripts/report.py and `--report` of evaluate.py, as typed; an untrained network is enough for that."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from datasets.frame import Frame
from datasets.labels import organ_and_tumor
from engine.segmenter import Segmenter
from networks import build
from tests.commands import error_of, in_process, output_of
from tests.data import kits_case


def save_checkpoint(path: Path, task: str) -> Path:
    torch.manual_seed(0)
    label_map = organ_and_tumor()[task]
    network = build("enet", label_map.num_classes)
    segmenter = Segmenter(network, "enet", "kits", label_map, Frame(32, 0), (-200.0, 300.0))
    path.parent.mkdir()
    content = {"weights": network.state_dict(), "cases": {"train": ["00000"], "val": []}, "config": {}, "epoch": 1}
    torch.save({**segmenter.description(), **content}, path)
    return path


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for number in range(2):
        kits_case(tmp_path / "raw", number)
    return tmp_path / "raw"


def test_networks_are_compared_and_their_results_read_again(raw: Path, tmp_path: Path) -> None:
    teacher, student = (save_checkpoint(tmp_path / name / "best.ckpt", "all") for name in ("teacher", "student"))
    page = tmp_path / "page.html"
    words = ("--inpath", raw, "--viewer_cases", 1, "--device", "cpu", "--outpath", page)
    printed = output_of(in_process("scripts/report.py", "--ckpt", teacher, student, *words))
    text = page.read_text(encoding="utf-8")
    assert f"written: {page}" in printed and "1 of these 2 cases trained teacher and student" in text
    assert text.count('type="application/octet-stream"') == 1 and "the tables have 1 more" in text
    assert str(tmp_path) not in text

    words = ("--inpath", raw, "--device", "cpu", "--outpath", tmp_path / "r.json", "--report", tmp_path / "one.html")
    output_of(in_process("scripts/evaluate.py", "--ckpt", teacher, *words))
    assert (tmp_path / "one.html").read_text(encoding="utf-8").count('type="application/octet-stream"') == 2
    again = ("--results", tmp_path / "r.json", "--names", "a <b>", "--outpath", page)
    output_of(in_process("scripts/report.py", *again))
    text = page.read_text(encoding="utf-8")
    assert "a &lt;b&gt;" in text and "00001" in text and "case-viewer" not in text


def test_what_cannot_be_reported_is_refused(raw: Path, tmp_path: Path) -> None:
    first, other = (save_checkpoint(tmp_path / task / "best.ckpt", task) for task in ("all", "tumor"))
    out = ("--outpath", tmp_path / "page.html")
    line = error_of(in_process("scripts/report.py", "--ckpt", first, other, "--inpath", raw, *out))
    assert "its task is tumor" in line and "make one for each" in line
    assert "--inpath" in error_of(in_process("scripts/report.py", "--ckpt", first, *out))
    assert "no such file" in error_of(in_process("scripts/report.py", "--results", tmp_path / "no.json", *out))
    assert "must end in .html" in error_of(in_process("scripts/report.py", "--ckpt", first, "--outpath", "page.pdf"))
    assert not (tmp_path / "page.html").exists()
