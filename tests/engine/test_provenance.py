"""What a run says of where it comes from, and what of it others may see."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets.slices.slice_folder import SliceFolder
from engine import provenance
from engine.benchmark.runs import is_result
from engine.provenance import (
    git_commit,
    package_versions,
    shown_command,
    shown_line,
    shown_word,
    write_run_file,
    write_shown_run_file,
)
from tests.commands import in_process, output_of
from tests.data import ct_and_label, kits_case, save
from tests.paths import ROOT
from tests.small import write_bare_archive
from tests.training import CPU, small_trainer
from utils.errors import UserError
from utils.fingerprint import END, file_digest


def test_every_launch_of_a_run_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--checkpoint_path", str(tmp_path)])
    for _ in range(2):
        write_run_file(tmp_path, CPU, {"slices": "0123", "teacher": None}, ["tumor"], 1.5)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--resume"])
    write_run_file(tmp_path, CPU, {"slices": "0123"}, ["tumor"])
    first, second = json.loads((tmp_path / "run.json").read_text())
    assert first["command"] == f"python train.py --checkpoint_path {tmp_path}"
    assert second["command"].endswith("--resume")
    assert first["digests"] == {"slices": "0123"} and first["classes"] == ["tumor"]
    assert (first["seconds"], second["seconds"]) == (3.0, 0.0)
    assert first["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert first["environment"]["python"] and first["commit"] == git_commit()


def test_a_run_file_that_is_passed_on_hides_names_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/report.py", "--inpath", str(tmp_path / "raw"), "--cases", "Doe-Jane", "7"])
    path, shown = tmp_path / "page.run.json", {"Doe-Jane": "case A1", "7": "7"}
    for _ in range(2):
        write_shown_run_file(path, None, {"Doe-Jane": "0123", "7": "4567"}, ["tumor"], 1.0, shown)
    (launch,) = json.loads(path.read_text())
    assert launch["command"] == "python report.py --inpath raw --cases case A1 7"
    assert launch["digests"] == {"case A1": "0123", "7": "4567"} and launch["seconds"] == 2.0


def test_a_run_file_of_something_else_is_refused(tmp_path: Path) -> None:
    for content in ("{}", "[1]"):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(UserError, match=r"run\.json: is not a list of launches"):
            write_run_file(tmp_path, CPU, {}, [])


def test_packages_are_those_that_are_required() -> None:
    names = {line.partition("==")[0] for line in (ROOT / "requirements.txt").read_text().splitlines() if line.strip()}
    assert package_versions().keys() == names


def test_the_commit_is_of_this_code_and_says_whether_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> None:
        author = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *author, *words], check=True, capture_output=True)

    def found(root: Path) -> str | None:
        monkeypatch.setattr(provenance, "ROOT", root)
        return git_commit.__wrapped__()

    assert found(tmp_path) is None
    git("init", "-q")
    (tmp_path / "inner").mkdir()
    (tmp_path / "file").write_text("a")
    git("add", "file")
    git("commit", "-qm", "first")
    commit = found(tmp_path)
    assert commit is not None and len(commit) == 40
    assert found(tmp_path / "inner") is None
    (tmp_path / "file").write_text("b")
    assert found(tmp_path) == f"{commit} with changes"


def test_what_is_shown_has_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Miller" / "raw").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    shown = {
        "/home/someone/project/train.py": "train.py",
        str(tmp_path / "Miller"): "Miller",
        "--inpath=/data/Miller/case 1": "--inpath=case 1",
        "Miller/raw": "raw",
        "Miller/new.json": "new.json",
        "../other/new": "new",
        "smp/fpn/mit_b1": "smp/fpn/mit_b1",
        "kd/at:0.5": "kd/at:0.5",
        "--size": "--size",
        "": "",
    }
    assert {word: shown_word(word) for word in shown} == shown
    assert shown_command(["/x/train.py", "--ckpt", "/x/y/best.ckpt"]) == "python train.py --ckpt best.ckpt"


def test_a_line_that_is_shown_names_its_script_as_it_is_typed() -> None:
    line = "python scripts/evaluate.py --ckpt /x/y/best.ckpt --inpath '/data/Miller/case 1'"
    assert shown_line(line) == "python scripts/evaluate.py --ckpt best.ckpt --inpath 'case 1'"


def test_a_checkpoint_says_what_made_it_without_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slices = SliceFolder.open(write_bare_archive(tmp_path / "slices"), "kits", "tumor")
    monkeypatch.setattr(sys, "argv", ["/somewhere/train.py", "--train_data_path", str(slices.folder)])
    trainer = small_trainer(slices, tmp_path / "run")
    trainer.save_last()
    content = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert content["command"] == "python train.py --train_data_path slices"
    assert content["commit"] == git_commit() and content["packages"] == package_versions()
    assert str(tmp_path).encode() not in (tmp_path / "run" / "last.ckpt").read_bytes()


def test_results_of_slices_that_were_cut_again_are_not_mixed(tmp_path: Path) -> None:
    settings = {"format": 3, "slices": "names", "slice contents": "a"}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    (tmp_path / "result.json").write_text("{}")
    assert is_result(tmp_path, settings)
    with pytest.raises(UserError, match="slice contents = a, not b"):
        is_result(tmp_path, {**settings, "slice contents": "b"})
    del settings["slice contents"]
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    assert is_result(tmp_path, {**settings, "slice contents": "b"})  # of an earlier version


def test_slicemaker_says_what_it_read_once(tmp_path: Path) -> None:
    for number in range(3):
        kits_case(tmp_path / "raw", number)
    words = ("--inpath", tmp_path / "raw", "--outpath", tmp_path / "out", "--val_fraction", 0.3, "--workers", 1)

    def launches() -> list[dict[str, Any]]:
        output_of(in_process("scripts/SliceMaker.py", *words))
        return json.loads((tmp_path / "out" / "run.json").read_text())  # type: ignore[no-any-return]

    (first,) = launches()
    assert first["digests"].keys() == {"00000", "00001", "00002"} and first["classes"] == ["tumor"]
    assert "torch" not in first["environment"] and launches() == [first]
    image, _ = ct_and_label(seed=9)
    save(image, tmp_path / "raw" / "case_00001" / "imaging.nii.gz")
    again = launches()
    assert again[0] == first and again[1]["digests"].keys() == {"00001"}
    assert again[1]["digests"]["00001"] != first["digests"]["00001"]


def test_a_large_file_is_told_by_its_content_or_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "volume.nii.gz"
    path.write_bytes(gzip.compress(bytes(5 * END), 0, mtime=0))
    of_zeros = file_digest(path)
    path.write_bytes(gzip.compress(bytes(END * 5 // 2) + b"1" + bytes(END * 5 // 2 - 1), 0, mtime=0))
    assert file_digest(path) != of_zeros

    path = tmp_path / "volume.nii"
    content = np.zeros(5 * END, np.uint8)
    digests = set()
    for change in (None, 0, -1, -END, END * 5 // 2):
        changed = content.copy()
        if change is not None:
            changed[change] = 1
        changed.tofile(path)
        digests.add(file_digest(path))
    content[:-1].tofile(path)
    assert len({*digests, file_digest(path)}) == 6
    with pytest.raises(UserError, match=r"absent\.nii: cannot be read"):
        file_digest(tmp_path / "absent.nii")


def test_an_optional_runtime_is_recorded_where_it_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    assert "openvino" not in package_versions()
    monkeypatch.setitem(sys.modules, "openvino", sys)
    assert "openvino" in package_versions()
