"""predict.py as a job that is started again and again on a folder: what it keeps, redoes, removes and reports."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.frame import Frame
from datasets.labels import organ_and_tumor
from tests.commands import Done, error_of, in_process, output_of
from tests.data import KITS, ct_and_label, kits_case, save, voxels
from tests.small import save_untrained
from utils.lock import only_one


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "best.ckpt"
    save_untrained(path, organ_and_tumor()["all"], Frame(32, 28))
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three images: in the folder, below it, and a folder further down."""
    for seed, name in enumerate(("one", "a/two", "a/b/three")):
        save(ct_and_label(seed=seed)[0], tmp_path / "in" / f"{name}.nii.gz", "LPS")
    return tmp_path / "in"


def predict(ckpt: Path, inpath: Path, outpath: Path, *words: object) -> Done:
    ends = ("--ckpt", ckpt, "--inpath", inpath, "--outpath", outpath, "--device", "cpu", "--batch_size", 3)
    return in_process("scripts/predict.py", *ends, *words)


def files(folder: Path, pattern: str = "*.nii.gz") -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(pattern))


def times(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_mtime_ns for name in files(folder)}


def run_file(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return content


def test_a_tree_is_kept_and_reported(ckpt: Path, tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    printed = output_of(predict(ckpt, tree, out, "--preview"))
    assert files(out) == ["a/b/three.nii.gz", "a/two.nii.gz", "one.nii.gz"]
    assert files(out, "*.png") == ["a/b/three.png", "a/two.png", "one.png"]
    assert (out / "one.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((out / "volumes.csv").read_text().splitlines()))
    assert [(row["case"], row["name"]) for row in rows[:2]] == [("a/b/three", "organ"), ("a/b/three", "tumor")]
    for row in rows:
        mask = voxels(out / f"{row['case']}.nii.gz") == int(row["label"])
        assert int(row["voxels"]) == mask.sum()
        assert float(row["ml"]) == pytest.approx(mask.sum() * 3.0 * 0.8 * 0.7 / 1000, abs=1e-4)
    assert len(json.loads((out / "volumes.json").read_text())) == len(rows) == 6
    assert f"{rows[-1]['voxels']} voxels of label 2 ({float(rows[-1]['ml']):.4g} ml)" in printed
    record = run_file(out)
    (launch,) = record["launches"]
    assert launch["classes"][1] == {"class": 2, "name": "tumor", "label": 2} and launch["packages"]["torch"]
    assert record["cases"]["a/two"]["source"]["file"] == "a/two.nii.gz"
    for report in ("run.json", "volumes.csv", "volumes.json"):
        assert str(tmp_path) not in (out / report).read_text()


def test_what_is_done_is_skipped_until_something_changes(ckpt: Path, tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    output_of(predict(ckpt, tree, out))
    first = times(out)
    os.utime(tree / "one.nii.gz")  # A copy of the same image is the same image.
    assert "3 of 3 cases are done" in output_of(predict(ckpt, tree, out))
    assert times(out) == first and len(run_file(out)["launches"]) == 1

    (out / "one.nii.gz").unlink()
    save(ct_and_label(seed=9)[0], tree / "a" / "two.nii.gz", "LPS")
    assert "1 of 3 cases are done" in output_of(predict(ckpt, tree, out))
    assert [name for name in first if times(out)[name] == first[name]] == ["a/b/three.nii.gz"]

    second = times(out)
    assert "are done" not in output_of(predict(ckpt, tree, out, "--threshold", 0.9))
    assert all(times(out)[name] != second[name] for name in second)
    third = times(out)
    assert "are done" not in output_of(predict(ckpt, tree, out, "--threshold", 0.9, "--overwrite"))
    assert all(times(out)[name] != third[name] for name in third)
    assert "are done" not in output_of(predict(ckpt, tree, out, "--threshold", 0.9, "--preview"))


def test_another_networks_masks_are_redone(ckpt: Path, tree: Path, tmp_path: Path) -> None:
    output_of(predict(ckpt, tree, tmp_path / "out"))
    save_untrained(tmp_path / "other.ckpt", organ_and_tumor()["all"], Frame(32, 24))
    assert "are done" not in output_of(predict(tmp_path / "other.ckpt", tree, tmp_path / "out"))


def test_a_case_that_fails_leaves_no_mask_and_the_others_go_on(ckpt: Path, tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    output_of(predict(ckpt, tree, out, "--preview"))
    image = (tree / "a" / "two.nii.gz").read_bytes()
    (tree / "a" / "two.nii.gz").write_bytes(image[: len(image) // 2])
    (out / "one.nii.gz").unlink()
    line = error_of(predict(ckpt, tree, out, "--preview"))
    assert "1 of 3 cases could not be predicted" in line and "two.nii.gz: cannot be read as NIfTI" in line
    assert files(out) == ["a/b/three.nii.gz", "one.nii.gz"] and "a/two.png" not in files(out, "*.png")
    row = next(row for row in csv.DictReader((out / "volumes.csv").open()) if row["case"] == "a/two")
    assert row["voxels"] == row["ml"] == "" and row["notes"].startswith("failed: a/two.nii.gz: cannot be read")
    (tree / "a" / "two.nii.gz").write_bytes(image)
    assert "2 of 3 cases are done" in output_of(predict(ckpt, tree, out, "--preview"))
    assert "failed" not in (out / "volumes.csv").read_text()


def test_results_in_a_folder_of_the_images_are_no_images(ckpt: Path, tree: Path) -> None:
    for _ in range(2):
        printed = output_of(predict(ckpt, tree, tree / "predicted", "--probabilities", "nifti"))
    assert "left out, in the folder that is written to: 6" in printed and "3 of 3 cases are done" in printed
    assert len(files(tree / "predicted")) == 6


def test_probabilities_lie_as_nnunet_writes_them(ckpt: Path, tmp_path: Path) -> None:
    image = kits_case(tmp_path, 0, shape=(8, 20, 24)) / "imaging.nii.gz"
    output_of(predict(ckpt, image, tmp_path / "npz", "--probabilities"))
    output_of(predict(ckpt, image, tmp_path / "nifti" / "own.nii.gz", "--probabilities", "nifti"))
    with np.load(tmp_path / "npz" / "00000.npz") as file:
        probabilities = file["probabilities"]
    stored = voxels(image)
    assert probabilities.shape == (3, *stored.shape[::-1]) and probabilities.dtype == np.float32
    assert np.allclose(probabilities.sum(axis=0), 1, atol=1e-5)
    labels = voxels(tmp_path / "npz" / "00000.nii.gz")
    assert np.array_equal(probabilities.argmax(axis=0).T, labels) and len(np.unique(labels)) > 1
    assert np.array_equal(voxels(tmp_path / "nifti" / "own_probabilities.nii.gz"), probabilities.T)
    assert np.array_equal(voxels(tmp_path / "nifti" / "own.nii.gz"), labels)
    assert sorted(path.name for path in (tmp_path / "nifti").iterdir() if "nii" not in path.name) == [
        "own.run.json", "own.volumes.csv", "own.volumes.json",
    ]  # fmt: skip


def test_files_that_would_take_each_others_place_are_refused(ckpt: Path, tree: Path, tmp_path: Path) -> None:
    save(ct_and_label()[0], tree / "one_probabilities.nii.gz", KITS)
    line = error_of(predict(ckpt, tree, tmp_path / "out", "--probabilities", "nifti"))
    assert "one_probabilities.nii.gz: is a result of one" in line and not files(tmp_path / "out")


def test_a_foreign_run_file_is_not_overwritten(ckpt: Path, tree: Path, tmp_path: Path) -> None:
    for content in ("[]", "{", '{"cases": {"a": 1}, "launches": []}'):
        (tmp_path / "run.json").write_text(content)
        assert "run.json: " in error_of(predict(ckpt, tree / "a", tmp_path))
        assert (tmp_path / "run.json").read_text() == content
    assert not list(tmp_path.glob("*.nii.gz"))


def test_a_second_process_is_refused(ckpt: Path, tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with only_one(out / ".run.json.lock", "is predicting there"):
        line = error_of(predict(ckpt, tree, out))
        assert "is predicting there; wait for it, or give another folder" in line
        output_of(predict(ckpt, tree / "one.nii.gz", out / "one.nii.gz"))  # Its reports are its own.
    assert files(out) == ["one.nii.gz"]
    output_of(predict(ckpt, tree, out))
    assert not list(out.glob(".*"))


def test_refused_options_make_no_folder(ckpt: Path, tree: Path, tmp_path: Path) -> None:
    line = error_of(predict(ckpt, tree, tmp_path / "out", "--dicom_seg"))
    assert "is no DICOM series" in line and not (tmp_path / "out").exists()
    line = error_of(predict(ckpt, tree, tmp_path / "out", "--runtime", "openvino"))
    assert "best.ckpt runs in PyTorch" in line and not (tmp_path / "out").exists()
