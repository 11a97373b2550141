"""scripts/report.py and `--report` of evaluate.py, as typed; an untrained network is enough for that."""

from __future__ import annotations

import json
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
    (launch,) = json.loads((tmp_path / "page.run.json").read_text())
    assert launch["digests"].keys() == {"checkpoint of teacher", "checkpoint of student", "00000", "00001"}
    assert launch["command"].startswith("python report.py --ckpt best.ckpt") and str(tmp_path) not in str(launch)

    words = ("--inpath", raw, "--device", "cpu", "--outpath", tmp_path / "r.json", "--report", tmp_path / "one.html")
    output_of(in_process("scripts/evaluate.py", "--ckpt", teacher, *words))
    assert (tmp_path / "one.html").read_text(encoding="utf-8").count('type="application/octet-stream"') == 2
    again = ("--results", tmp_path / "r.json", "--names", "a <b>", "--outpath", page)
    output_of(in_process("scripts/report.py", *again))
    text = page.read_text(encoding="utf-8")
    assert "a &lt;b&gt;" in text and "00001" in text and "case-viewer" not in text
    launches = json.loads((tmp_path / "page.run.json").read_text())
    assert launches[0] == launch and launches[1]["digests"].keys() == {"results of a <b>"}


def test_what_cannot_be_reported_is_refused(raw: Path, tmp_path: Path) -> None:
    first, other = (save_checkpoint(tmp_path / task / "best.ckpt", task) for task in ("all", "tumor"))
    out = ("--outpath", tmp_path / "page.html")
    line = error_of(in_process("scripts/report.py", "--ckpt", first, other, "--inpath", raw, *out))
    assert "its task is tumor" in line and "make one for each" in line
    assert "--inpath" in error_of(in_process("scripts/report.py", "--ckpt", first, *out))
    assert "no such file" in error_of(in_process("scripts/report.py", "--results", tmp_path / "no.json", *out))
    (tmp_path / "page.run.json").write_text("{}")
    line = error_of(in_process("scripts/report.py", "--ckpt", first, "--inpath", raw, *out))
    assert "page.run.json: is not a list of launches" in line
    assert "must end in .html" in error_of(in_process("scripts/report.py", "--ckpt", first, "--outpath", "page.pdf"))
    assert not (tmp_path / "page.html").exists()


def test_where_the_networks_look_is_part_of_the_page(raw: Path, tmp_path: Path) -> None:
    teacher, student = (save_checkpoint(tmp_path / name / "best.ckpt", "all") for name in ("teacher", "student"))
    looks, page, results = (tmp_path / name for name in ("looks", "page.html", "r.json"))
    where = ("--inpath", raw, "--device", "cpu")
    few = ("--layers", "d2", "--method", "gcam", "--random", 1)
    output_of(in_process("scripts/explain.py", "--ckpt", student, *where, *few, "--outpath", looks))
    content = json.loads((looks / "attention.json").read_text())

    words = (*where, "--viewer_cases", 0, "--attention", looks, "--outpath", page)
    output_of(in_process("scripts/report.py", "--ckpt", teacher, student, "--names", "T", "S", *words))
    text = page.read_text(encoding="utf-8")
    assert "Where the networks look for the tumor" in text and "In this section student is S above." in text
    assert text.count("data:image/png;base64,") == len(content["pictures"]) > 0
    assert f"<td>{content['attention'][0]['chance']:.3f}</td>" in text and 'href="#attention"' in text
    assert "attention.json" in json.loads((tmp_path / "page.run.json").read_text())[0]["digests"]

    output_of(in_process("scripts/evaluate.py", "--ckpt", student, *where, "--outpath", results))
    output_of(in_process("scripts/report.py", "--results", results, "--attention", looks, "--outpath", page))
    assert "Where the networks look for the tumor" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "its network a is none of the page, which is of teacher; give explain.py and report.py the same files"),
        ({"digests": None}, "is not what explain.py of this version writes; run it again"),
        ({"digests": {}, "pictures": [{"file": "../x.png", "caption": ""}]}, "looks/x.png: cannot be read"),
        ({"digests": {}, "pictures": [{"file": "attention.json", "caption": ""}]}, "is no PNG file"),
    ],
)
def test_attention_of_something_else_is_refused(
    raw: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    teacher = save_checkpoint(tmp_path / "teacher" / "best.ckpt", "all")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "looks").mkdir()
    content = {"digests": {"a": "0"}, "pictures": [], "attention": [], "methods": {}, "compared": None}
    content |= {"target": "tumor", "notice": ""}
    (tmp_path / "looks" / "attention.json").write_text(json.dumps({**content, **change}))
    words = ("--inpath", raw, "--attention", tmp_path / "looks", "--outpath", tmp_path / "page.html")
    assert message in error_of(in_process("scripts/report.py", "--ckpt", teacher, *words))
    assert not (tmp_path / "page.html").exists()
