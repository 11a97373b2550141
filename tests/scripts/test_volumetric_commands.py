"""From raw cases to a student of single slices, by way of a teacher of blocks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from tests.commands import error_of, in_process, output_of
from tests.data import cut_slices, kits_case

TRAINING = ("--steps", 2, "--batch_size", 4, "--workers", 0, "--device", "cpu")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with phantoms, all of their slices, and a volumetric teacher that has seen blocks of four."""
    out = tmp_path_factory.mktemp("volumetric")
    output_of(in_process(
        "scripts/make_phantom.py", "--outpath", out / "raw", "--dataset", "kits", "--cases", 3, "--size", 48,
        "--slices", 6, 7,
    ))  # fmt: skip
    output_of(in_process(
        "scripts/SliceMaker.py", "--inpath", out / "raw", "--outpath", out / "slices", "--dataset", "kits",
        "--task", "tumor", "--test_fraction", 0.3, "--val_fraction", 0.3, "--slices", "all", "--workers", 1,
    ))  # fmt: skip
    printed = output_of(in_process(
        "train.py", "--model", "SegResNet3D", "--block", 4, "--train_data_path", out / "slices", "--checkpoint_path",
        out / "teacher", "--size", 32, "--crop", 0, *TRAINING,
    ))  # fmt: skip
    assert "block  4" in printed
    yield out


def evaluate(job: Path, folder: Path) -> None:
    """By both protocols."""
    words = ("--ckpt", folder / "best.ckpt", "--test_data_path", job / "slices", "--device", "cpu", "--outpath")
    for path, protocol in ((folder / "test.json", ()), (folder / "published.json", ("--slice_protocol",))):
        output_of(in_process("scripts/evaluate.py", *words, path, *protocol))
        assert json.loads(path.read_text())["cases"] == 1


def distil(job: Path, folder: Path, *words: object) -> tuple[object, ...]:
    return (
        "train_kd.py", "--tckpt", job / "teacher" / "best.ckpt", "--train_data_path", job / "slices",
        "--checkpoint_path", folder, *TRAINING, *words,
    )  # fmt: skip


def test_a_volumetric_teacher_teaches_a_student_of_slices(job: Path, tmp_path: Path) -> None:
    evaluate(job, job / "teacher")
    assert torch.load(job / "teacher" / "best.ckpt", weights_only=True)["block"] == 4
    printed = output_of(
        in_process(*distil(job, tmp_path, "--smodel", "malunet", "--kd", "hilbert", "prototypes", "kd"))
    )
    assert "[0.1 Hilbert(t_e3 -> s_e3)] + [(1 - inter(centroids(t_logits), s_logits))" in printed
    evaluate(job, tmp_path)
    student = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert "block" not in student and student["config"]["block"] == 4


def test_predictions_of_a_volumetric_network_have_the_volumes_shape(job: Path, tmp_path: Path) -> None:
    image = job / "raw" / "case_00000" / "imaging.nii.gz"
    words = ("--ckpt", job / "teacher" / "best.ckpt", "--inpath", image, "--outpath", tmp_path, "--device", "cpu")
    output_of(in_process("scripts/predict.py", *words))
    (written,) = tmp_path.glob("*.nii.gz")
    assert nib.load(written).shape == nib.load(image).shape


def test_a_volume_stored_from_the_top_gets_the_same_labels(job: Path, tmp_path: Path) -> None:
    source = nib.load(job / "raw" / "case_00000" / "imaging.nii.gz")
    upward = nib.as_closest_canonical(source)
    for name, image in (("up", upward), ("down", upward.slicer[:, :, ::-1])):
        nib.save(image, tmp_path / f"{name}.nii.gz")
        words = ("--inpath", tmp_path / f"{name}.nii.gz", "--outpath", tmp_path / name / "labels.nii.gz")
        ckpt = ("--ckpt", job / "teacher" / "best.ckpt", "--device", "cpu", "--batch_size", 2)
        output_of(in_process("scripts/predict.py", *ckpt, *words))
    up, down = (np.asarray(nib.load(tmp_path / name / "labels.nii.gz").dataobj) for name in ("up", "down"))
    assert len(np.unique(up)) > 1 and (up == down[:, :, ::-1]).all()


def test_its_slices_get_the_same_scores_as_the_raw_case(job: Path, tmp_path: Path) -> None:
    """KiTS is stored from superior to inferior, so that slice numbers run against the volume."""
    (case,) = json.loads((job / "slices" / "splits.json").read_text())["test"]
    doors = (("--test_data_path", job / "slices"), ("--inpath", job / "raw", "--cases", case))
    found = []
    for number, door in enumerate(doors):
        words = ("--ckpt", job / "teacher" / "best.ckpt", "--device", "cpu", "--outpath")
        output_of(in_process("scripts/evaluate.py", *words, tmp_path / f"{number}.json", *door))
        found.append(json.loads((tmp_path / f"{number}.json").read_text())["regions"])
    assert found[0] == found[1] and found[0]["tumor"]["dice"]["mean"] > 0


def test_networks_of_blocks_and_of_slices_do_not_answer_together(job: Path, tmp_path: Path) -> None:
    where = ("--train_data_path", job / "slices", "--size", 32, "--crop", 0, *TRAINING)
    output_of(in_process("train.py", "--model", "enet", "--checkpoint_path", tmp_path / "enet", *where))
    ckpts = ("--ckpt", job / "teacher" / "best.ckpt", tmp_path / "enet" / "best.ckpt")
    line = error_of(in_process("scripts/answer.py", *ckpts, "--inpath", job / "raw", "--outpath", tmp_path / "out"))
    assert "sees one slice at once" in line and "sees 4 slices" in line and "a folder of its own" in line


def test_a_training_that_was_stopped_goes_on_with_its_blocks(job: Path) -> None:
    words = ("train.py", "--model", "segresnet3d", "--train_data_path", job / "slices", "--checkpoint_path")
    resumed = (*words, job / "teacher", "--size", 32, "--crop", 0, *TRAINING, "--resume", "--block")
    assert "block = 4, not 6" in error_of(in_process(*resumed, 6))
    output_of(in_process(*resumed, 4))


def test_what_cannot_be_is_said_in_one_line(job: Path, tmp_path: Path) -> None:
    where = ("--train_data_path", job / "slices", "--checkpoint_path", tmp_path / "run", "--size", 32, "--crop", 0)
    single = in_process("train.py", "--model", "enet", "--block", 4, *where, *TRAINING)
    assert "enet sees single slices, not blocks of 4" in error_of(single)
    student = in_process(*distil(job, tmp_path / "run", "--smodel", "segresnet3d"))
    assert "a volumetric network cannot be the student" in error_of(student)
    for script, verb, words in (
        ("scripts/export.py", "exported", ()),
        ("scripts/explain.py", "explained", ("--test_data_path", job / "slices")),
    ):
        ckpt = ("--ckpt", job / "teacher" / "best.ckpt", "--outpath", tmp_path / "out")
        assert f"segresnet3d sees blocks of slices, and cannot be {verb}" in error_of(in_process(script, *ckpt, *words))
    assert not (tmp_path / "run").exists() and not (tmp_path / "out").exists()


def test_slices_that_are_missing_are_named_with_the_command_that_cuts_them(tmp_path: Path) -> None:
    for number in range(3):
        kits_case(tmp_path / "raw", number)
    cut_slices(tmp_path / "raw", tmp_path / "few", negatives=0.0, val_fraction=0.3)
    where = ("--train_data_path", tmp_path / "few", "--checkpoint_path", tmp_path / "run", "--size", 32, "--crop", 0)
    line = error_of(in_process("train.py", "--model", "segresnet3d", "--block", 4, *where, *TRAINING))
    assert "lacks slices of case" in line and "scripts/SliceMaker.py" in line and line.endswith("--slices all")
    assert not (tmp_path / "run").exists()
