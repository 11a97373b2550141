"""Volumes that are not as they should be: SliceMaker, evaluate and predict say the same of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from datasets.frame import Frame
from datasets.labels import organ_and_tumor
from engine.segmenter import Segmenter
from networks import build
from tests.commands import Done, error_of, in_process, output_of
from tests.data import ct_and_label, oriented, save
from utils.checkpoint import save_checkpoint

Command = Callable[..., Done]
CASES = 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network."""
    label_map = organ_and_tumor()["tumor"]
    segmenter = Segmenter(build("enet", 2), "enet", "kits", label_map, Frame(32, 0), (-200.0, 300.0))
    path = tmp_path_factory.mktemp("network") / "best.ckpt"
    weights = segmenter.network.state_dict()
    save_checkpoint(
        path, {**segmenter.description(), "weights": weights, "config": {}, "cases": {"train": [], "val": []}}
    )
    return path


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for number in range(CASES):
        image, label = ct_and_label(seed=number)
        folder = tmp_path / "raw" / f"case_{number:05d}"
        save(image, folder / "imaging.nii.gz", "LPS")
        save(label, folder / "segmentation.nii.gz", "LPS")
    return tmp_path / "raw"


@pytest.fixture
def commands(raw: Path, checkpoint: Path, tmp_path: Path) -> dict[str, Command]:
    """By name; each takes more words."""

    def slicemaker(*words: object) -> Done:
        return in_process(
            "scripts/SliceMaker.py", "--inpath", raw, "--outpath", tmp_path / "out", "--workers", 1, *words
        )

    def evaluate(*words: object) -> Done:
        ends = ("--outpath", tmp_path / "scores.json", "--device", "cpu")
        return in_process("scripts/evaluate.py", "--ckpt", checkpoint, "--inpath", raw, *ends, *words)

    def predict(*words: object) -> Done:
        ends = ("--outpath", tmp_path / "predicted", "--device", "cpu")
        return in_process("scripts/predict.py", "--ckpt", checkpoint, "--inpath", raw, *ends, *words)

    return {"SliceMaker": slicemaker, "evaluate": evaluate, "predict": predict}


def replace_images(raw: Path, change: Callable[[NDArray[np.int16]], NDArray[np.generic]]) -> None:
    for number in range(CASES):
        save(change(ct_and_label(seed=number)[0]), raw / f"case_{number:05d}" / "imaging.nii.gz", "LPS")


@pytest.mark.parametrize("name", ["SliceMaker", "evaluate", "predict"])
def test_what_is_unusual_is_one_note_for_all_cases(name: str, raw: Path, commands: dict[str, Command]) -> None:
    replace_images(raw, lambda image: image.clip(0, 255))
    done = commands[name]()
    notes = [line for line in (output_of(done) + done.stderr).splitlines() if line.startswith("note: ")]
    text = "HU from 0 to 255, without air, as if cut to a window: what lies beyond is lost"
    assert notes == [f"note: 3 cases (00000, 00001, 00002): {text}"]


@pytest.mark.parametrize("name", ["SliceMaker", "evaluate", "predict"])
def test_what_cannot_be_hu_is_refused_unless_it_is_wanted(name: str, raw: Path, commands: dict[str, Command]) -> None:
    replace_images(raw, lambda image: (image / 2000.0 + 0.5).astype(np.float32))
    message = error_of(commands[name]()) if name != "predict" else commands[name]().stderr
    assert "case_00000/imaging.nii.gz: its intensities are" in message and "can't be HU" in message
    assert "--any_intensity" in message
    output_of(commands[name]("--any_intensity"))


@pytest.mark.parametrize("name", ["SliceMaker", "evaluate"])
def test_a_label_of_another_orientation(name: str, raw: Path, commands: dict[str, Command]) -> None:
    _, label = ct_and_label(seed=1)
    nib.save(oriented(label, "RAS"), raw / "case_00001" / "segmentation.nii.gz")
    message = error_of(commands[name]())
    assert "case_00001/segmentation.nii.gz: has the orientation RAS, but imaging.nii.gz LPS" in message
    assert "--label_geometry header" in message and "--label_geometry array" in message
    done = commands[name]("--label_geometry", "header")
    assert "note: case 00001: the segmentation has the orientation RAS" in output_of(done) + done.stderr


def test_slices_are_cut_again_by_another_choice_only(raw: Path, commands: dict[str, Command], tmp_path: Path) -> None:
    _, label = ct_and_label(seed=1)
    nib.save(oriented(label, "LPI"), raw / "case_00001" / "segmentation.nii.gz")

    def target() -> str:
        (content,) = (json.loads(path.read_text()) for path in tmp_path.glob("out/cases.json"))
        return str(content["cases"]["00001"]["tasks"]["tumor"]["target"])

    assert "3 cut now" in output_of(commands["SliceMaker"]("--label_geometry", "header"))
    assert target() == "1-2"
    assert "0 cut now" in output_of(commands["SliceMaker"]())
    assert "1 cut now" in output_of(commands["SliceMaker"]("--label_geometry", "array"))
    assert target() == "5-6"
