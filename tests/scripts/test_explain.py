"""scripts/explain.py: what it leaves, and what it says of input that does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from datasets.frame import Frame
from datasets.labels import organ_and_tumor
from engine.segmenter import Segmenter
from networks import build
from tests.commands import Done, error_of, in_process, output_of
from tests.small import write_bare_archive

MakeCheckpoint = Callable[..., Path]


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bare_archive(tmp_path_factory.mktemp("data") / "slices", cases=3, slices=3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    folder = tmp_path_factory.mktemp("checkpoints")

    def make(name: str, task: str = "tumor", frame: Frame = Frame(32, 0)) -> Path:  # noqa: B008
        label_map = organ_and_tumor()[task]
        torch.manual_seed(len(name))
        network = build("malunet", label_map.num_classes)
        about = Segmenter(network, "malunet", "kits", label_map, frame, (-200.0, 300.0)).description()
        path = folder / name / "best.ckpt"
        path.parent.mkdir(exist_ok=True)
        rest = {"weights": network.state_dict(), "cases": {"train": [], "val": []}, "config": {}, "epoch": 1}
        torch.save({**about, **rest}, path)
        return path

    return make


def explain(ckpt: list[Path], slices: Path, out: Path, *words: object) -> Done:
    given = ["--ckpt", *ckpt, "--test_data_path", slices, "--outpath", out, "--device", "cpu"]
    return in_process("scripts/explain.py", *given, *words)


def test_it_leaves_pictures_numbers_and_a_page(checkpoint: MakeCheckpoint, slices: Path, tmp_path: Path) -> None:
    pair = [checkpoint("teacher"), checkpoint("student")]
    printed = output_of(explain(pair, slices, tmp_path, "--layers", "e3", "d2", "--random", 1))
    assert "student less teacher" in printed
    content = json.loads((tmp_path / "attention.json").read_text())
    assert len(content["attention"]) == 2 * 2 * 2
    assert all((each["cases"], each["slices"]) == (3, 9) for each in content["attention"] if not each["empty"])
    table = pd.read_csv(tmp_path / "attention.csv", dtype={"case": str})
    assert len(table) == 3 * 2 * 2 * 2 and set(table["network"]) == {"teacher", "student"}
    area = table.groupby("case")["chance"].mean()
    assert area.between(0.02, 0.1).all()  # a disc of an eighth of the side: 0.05 of the area
    reasons = [reason for each in content["slices"] for reason in each["reasons"]]
    assert reasons.count("random draw") == 1 and "smallest target" in reasons
    pictures = {path.name for path in tmp_path.glob("*.png")}
    named = {
        f"{each['case']}_{each['index']}_{method}.png" for each in content["slices"] for method in ("gcam", "gcampp")
    }
    assert pictures == named | {"links.png"}
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == len(pictures)


def test_chosen_slices_and_networks_of_other_frames(checkpoint: MakeCheckpoint, slices: Path, tmp_path: Path) -> None:
    pair = [checkpoint("wide"), checkpoint("narrow", frame=Frame(64, 32))]
    words = ["--layers", "e3", "--method", "gcam", "--slices", "00001:2", "--cases", "00000"]
    done = explain(pair, slices, tmp_path, *words)
    assert output_of(done) and "HLFD's links are not drawn" in done.stderr
    assert [path.name for path in tmp_path.glob("*.png")] == ["00001_2_gcam.png"]
    shares = pd.read_csv(tmp_path / "attention.csv").set_index("network")["chance"]
    assert shares["narrow"] > 2 * shares["wide"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--layers", "e9"], "choose from 'e1'"),
        (["--target", "kidney"], "there is no class 'kidney': choose one of tumor"),
        (["--slices", "7"], "'7' is no slice: write CASE:INDEX"),
        (["--slices", "00000:8"], "case 00000 has no such slice, but 0 to 2"),
        (["--slices", "5:1"], "no slices of 5; it has 00000, 00001, 00002"),
        (["--names", "a", "b"], "2 names for 1 checkpoints"),
    ],
)
def test_what_does_not_exist_is_named(
    checkpoint: MakeCheckpoint, slices: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    assert message in error_of(explain([checkpoint("one")], slices, tmp_path / "out", *words))
    assert not list((tmp_path / "out").glob("*"))


def test_a_run_file_of_something_else_is_told_before_any_work(
    checkpoint: MakeCheckpoint, slices: Path, tmp_path: Path
) -> None:
    (tmp_path / "run.json").write_text("{}")
    assert "run.json: is not a list of launches" in error_of(explain([checkpoint("one")], slices, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_networks_that_cannot_be_compared_are_refused(checkpoint: MakeCheckpoint, slices: Path, tmp_path: Path) -> None:
    pair = [checkpoint("one"), checkpoint("organs", task="organ")]
    error = error_of(explain(pair, slices, tmp_path))
    assert "organs/best.ckpt: its task is organ, and" in error and "is tumor; give networks of one kind" in error
    error = error_of(explain([pair[0], pair[0]], slices, tmp_path))
    assert "one: is the name of several networks; tell them apart with --names" in error


def test_data_without_the_target_are_refused(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    slices = write_bare_archive(tmp_path / "slices", cases=1, slices=2)
    for path in slices.glob("*.npz"):
        content = dict(np.load(path))
        np.savez(path, ct=content["ct"], mask=np.minimum(content["mask"], 1))
    error = error_of(explain([checkpoint("one")], slices, tmp_path / "out"))
    assert "no slice holds the class tumor" in error and "slices" in error


def test_names_that_may_be_of_patients_are_not_passed_on(
    checkpoint: MakeCheckpoint, slices: Path, tmp_path: Path
) -> None:
    own = tmp_path / "slices"
    own.mkdir()
    names = [path.name.replace("00001", "Doe-Jane") for path in sorted(slices.glob("*.npz"))]
    for path, name in zip(sorted(slices.glob("*.npz")), names, strict=True):
        (own / name).write_bytes(path.read_bytes())
    np.save(own / "kits_tumor_slices.npy", np.array(names))
    out = tmp_path / "out"
    words = ["--layers", "e3", "--method", "gcam", "--slices", "Doe-Jane:1", "00002:0", "--cases", "Doe-Jane", "00000"]
    printed = output_of(explain([checkpoint("one")], own, out, *words))
    assert "case A1 is Doe-Jane" in printed
    assert sorted(path.name for path in out.glob("*.png")) == ["00002_0_gcam.png", "case_A1_1_gcam.png"]
    for path in out.iterdir():
        assert b"Doe-Jane" not in path.read_bytes() and str(tmp_path).encode() not in path.read_bytes(), path
    content = json.loads((out / "attention.json").read_text())
    assert "--slices case A1:1 00002:0" in content["command"] and content["digests"].keys() == {"one"}
    (launch,) = json.loads((out / "run.json").read_text())
    assert launch["digests"].keys() == {"checkpoint of one", "case A1", "00000", "00002"}
    assert launch["classes"] == ["tumor"]
    assert launch["digests"]["checkpoint of one"] == content["digests"]["one"]
    assert launch["command"] == content["command"] and launch["seconds"] > 0 and launch["packages"]["torch"]
