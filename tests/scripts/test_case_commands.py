"""Which cases predict.py and evaluate.py take, and what they name: an untrained network is enough for that."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from datasets.frame import Frame
from datasets.labels import organ_and_tumor
from engine.segmenter import Segmenter
from networks import build
from tests.commands import Done, error_of, in_process, output_of
from tests.data import ct_and_label, cut_slices, kits_case, oriented, save

MakeCheckpoint = Callable[..., Path]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    network = build("enet", 2)
    kits = Segmenter(network, "enet", "kits", organ_and_tumor()["tumor"], Frame(32, 0), (-200.0, 300.0))

    def make(**changes: object) -> Path:
        path = folder / f"{len(list(folder.iterdir()))}.ckpt"
        content = {"weights": network.state_dict(), "cases": {"train": [], "val": []}, "config": {}, "epoch": 1}
        torch.save({**replace(kits, **changes).description(), **content}, path)  # type: ignore[arg-type]
        return path

    return make


def predict(ckpt: Path, inpath: Path, outpath: Path) -> Done:
    return in_process("scripts/predict.py", "--ckpt", ckpt, "--inpath", inpath, "--outpath", outpath, "--device", "cpu")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.nii*"))


def test_the_output_of_one_case_may_be_a_file(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    image = kits_case(tmp_path / "raw", 0) / "imaging.nii.gz"
    for name in ("own.nii.gz", "new/own.NII"):
        output_of(predict(checkpoint(), image, tmp_path / name))
        assert np.asanyarray(nib.load(tmp_path / name).dataobj).dtype == np.uint8
    kits_case(tmp_path / "raw", 1)
    line = error_of(predict(checkpoint(), tmp_path / "raw", tmp_path / "all.nii.gz"))
    assert "all.nii.gz: is the name of one file, and there are 2 cases; give a folder" in line
    assert "would overwrite" in error_of(predict(checkpoint(), image, image))


def test_a_folder_as_nnunet_predicts_it(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    for number in range(2):
        for channel in range(2):
            save(ct_and_label(seed=number)[0], tmp_path / "imagesTs" / f"a_{number}_000{channel}.nii.gz", "LPS")
    save(ct_and_label()[1], tmp_path / "imagesTs" / "a_0_seg.nii.gz", "LPS")
    printed = output_of(predict(checkpoint(), tmp_path / "imagesTs", tmp_path / "out"))
    assert names(tmp_path / "out") == ["a_0.nii.gz", "a_1.nii.gz"]
    assert "left out, other channels of the same images: 2: a_0_0001.nii.gz, a_1_0001.nii.gz" in printed
    assert "left out, taken for segmentations by their names: 1: a_0_seg.nii.gz" in printed


def test_the_channel_of_training_is_read(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    image, _ = ct_and_label()
    stored = np.asanyarray(oriented(image, "LPS").dataobj)
    both = np.stack([np.full_like(stored, -1000), stored], axis=-1)
    (tmp_path / "raw").mkdir()
    nib.save(nib.Nifti1Image(both, oriented(image, "LPS").affine), tmp_path / "raw" / "two.nii.gz")
    nib.save(nib.Nifti1Image(both[..., ::-1], oriented(image, "LPS").affine), tmp_path / "raw" / "turned.nii.gz")
    save(image, tmp_path / "raw" / "one.nii.gz", "LPS")
    for channel, same in ((1, "two"), (0, "turned")):
        out = tmp_path / f"out_{channel}"
        output_of(predict(checkpoint(dataset="msd", channel=channel), tmp_path / "raw", out))
        alone, chosen = (np.asanyarray(nib.load(out / f"{name}.nii.gz").dataobj) for name in ("one", same))
        assert np.array_equal(alone, chosen) and alone.any()
    assert "3D volume" in error_of(predict(checkpoint(), tmp_path / "raw" / "two.nii.gz", tmp_path / "out"))


def test_a_case_whose_segmentation_was_not_fetched_is_predicted(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    label = kits_case(tmp_path / "raw", 0) / "segmentation.nii.gz"
    kits_case(tmp_path / "raw", 1)
    label.unlink()
    label.symlink_to(tmp_path / "absent")
    assert "segmentation not fetched" in output_of(predict(checkpoint(), tmp_path / "raw", tmp_path / "out"))
    assert names(tmp_path / "out") == ["00000.nii.gz", "00001.nii.gz"]
    words = ["--ckpt", checkpoint(), "--inpath", tmp_path / "raw", "--outpath", tmp_path / "r.json", "--device", "cpu"]
    done = in_process("scripts/evaluate.py", *words)
    assert "whole volumes, 1 cases" in output_of(done) and "left out, segmentation not fetched" in done.stderr


def test_a_list_is_predicted_and_scored(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    for number in range(2):
        kits_case(tmp_path / "raw", number)
    rows = [f"raw/case_0000{n}/imaging.nii.gz,raw/case_0000{n}/segmentation.nii.gz" for n in range(2)]
    file = tmp_path / "cases.csv"
    file.write_text("\n".join(["image,label", *rows]))
    output_of(predict(checkpoint(), file, tmp_path / "out"))
    expected = [f"raw_case_0000{n}_imaging" for n in range(2)]
    assert names(tmp_path / "out") == [f"{name}.nii.gz" for name in expected]
    words = ["--ckpt", checkpoint(dataset="list"), "--inpath", file, "--outpath", tmp_path / "r.json"]
    words += ["--device", "cpu"]
    assert "what do the labels mean" in error_of(in_process("scripts/evaluate.py", *words))
    words += ["--labels", "1=organ", "2=tumor"]
    assert "in the window that the network was" in error_of(in_process("scripts/evaluate.py", *words, "--window", 0, 9))
    output_of(in_process("scripts/evaluate.py", *words, "--window", -200, 300))
    assert json.loads((tmp_path / "r.json").read_text())["cases"] == 2


def test_labels_of_a_list_are_scored_by_their_names(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    image, label = ct_and_label()
    save(image, tmp_path / "image.nii.gz")
    (tmp_path / "cases.csv").write_text("image,label\nimage.nii.gz,label.nii.gz")
    words = ["--ckpt", checkpoint(), "--inpath", tmp_path / "cases.csv", "--outpath", tmp_path / "r.json"]
    words += ["--device", "cpu", "--dataset", "list", "--labels"]
    scores = []
    for organ, tumor in ((1, 2), (2, 1)):
        save(np.array([0, organ, tumor], np.uint8)[label], tmp_path / "label.nii.gz")
        output_of(in_process("scripts/evaluate.py", *words, f"{organ}=organ", f"{tumor}=tumor"))
        scores.append(json.loads((tmp_path / "r.json").read_text())["regions"])
    assert scores[0] == scores[1] and scores[0]["tumor"]["dice"]["mean"] > 0
    line = error_of(in_process("scripts/evaluate.py", *words, "1=liver", "2=lesion"))
    assert "cases.csv: has no task tumor, which the network was trained for, but liver, lesion, all; name" in line


def test_mr_with_a_window_is_not_taken_for_ct(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    image, label = ct_and_label()
    save(image + 8000, tmp_path / "image.nii.gz")  # Far from HU.
    save(label, tmp_path / "label.nii.gz")
    file = tmp_path / "cases.csv"
    file.write_text("image,label\nimage.nii.gz,label.nii.gz")
    mr, ct = (checkpoint(dataset="list", window=(0.0, 9000.0), hounsfield=is_ct) for is_ct in (False, True))
    words = ["--inpath", file, "--outpath", tmp_path / "r.json", "--device", "cpu", "--labels", "1=organ", "2=tumor"]
    for ckpt, is_ct in ((mr, False), (ct, True)):
        note = "HU from 7000 to 8999, without air"
        predicted, scored = tmp_path / f"out_{is_ct}", in_process("scripts/evaluate.py", "--ckpt", ckpt, *words)
        assert (note in output_of(predict(ckpt, file, predicted))) is is_ct
        assert output_of(scored) and (note in scored.stderr) is is_ct


def test_all_cases_that_cannot_be_scored_are_named(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    for number in range(3):
        label = kits_case(tmp_path / "raw", number) / "segmentation.nii.gz"
        if number != 1:
            label.write_bytes(b"no segmentation")
    words = ["--ckpt", checkpoint(), "--inpath", tmp_path / "raw", "--outpath", tmp_path / "r.json", "--device", "cpu"]
    line = error_of(in_process("scripts/evaluate.py", *words))
    assert "2 of 3 cases cannot be used" in line and "case_00000" in line and "case_00002" in line
    assert not (tmp_path / "r.json").exists()


def test_of_many_cases_that_cannot_be_read_three_are_named(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    for number in range(5):
        (kits_case(tmp_path / "raw", number) / "imaging.nii.gz").write_bytes(b"no image")
    words = ["--ckpt", checkpoint(), "--inpath", tmp_path / "raw", "--outpath", tmp_path / "r.json", "--device", "cpu"]
    for done in (predict(checkpoint(), tmp_path / "raw", tmp_path / "out"), in_process("scripts/evaluate.py", *words)):
        line = error_of(done)
        assert "5 cases" in line and line.count("cannot be read as NIfTI") == 3 and line.endswith("; and 2 more")


def test_what_is_unusual_in_the_files_stands_beside_the_scores(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    for number in range(2):
        kits_case(tmp_path / "raw", number)
    image, _ = ct_and_label()
    save((image + 2100).astype(np.int16), tmp_path / "raw" / "case_00001" / "imaging.nii.gz")
    cut_slices(tmp_path / "raw", tmp_path / "slices", val_fraction=0)
    for source in (("--inpath", tmp_path / "raw"), ("--test_data_path", tmp_path / "slices")):
        words = ["--ckpt", checkpoint(), *source, "--outpath", tmp_path / "r.json", "--device", "cpu"]
        output_of(in_process("scripts/evaluate.py", *words))
        result = json.loads((tmp_path / "r.json").read_text())
        assert result["digests"].keys() == {"checkpoint", "00000", "00001"} and result["classes"] == ["tumor"]
        assert result["seconds"] > 0 and result["packages"]["numpy"] == np.__version__
        notes = result["notes"]
        assert list(notes) == ["00001"] and "as if 1024 had been added" in notes["00001"][0]


def test_cysts_that_the_network_was_not_taught_are_noted(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    _, label = ct_and_label()
    label[3, 6:8, 5:7] = 3
    save(label, kits_case(tmp_path / "raw", 0) / "segmentation.nii.gz")
    organ = checkpoint(label_map=organ_and_tumor()["organ"])
    words = ["--ckpt", organ, "--inpath", tmp_path / "raw", "--outpath", tmp_path / "r.json", "--device", "cpu"]
    done = in_process("scripts/evaluate.py", *words)
    assert done.returncode == 0
    assert "task organ holds label 3 (cyst) here, and did not where the network was trained" in done.stderr
