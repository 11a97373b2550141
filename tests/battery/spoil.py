"""The battery's commands, what a fault of its tables is, and ways to spoil what these commands read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from tests.data import ct_and_label, save
from tests.onnx_files import CONTENT, small_onnx


@dataclass(frozen=True)
class Place:
    """A folder with raw cases, slices cut from them, a network trained on these, and nothing at `out` yet."""

    root: Path

    @property
    def raw(self) -> Path:
        return self.root / "raw"

    @property
    def slices(self) -> Path:
        return self.root / "slices"

    @property
    def ckpt(self) -> Path:
        return self.root / "teacher" / "best.ckpt"

    @property
    def out(self) -> Path:
        return self.root / "out"


SHORT = "--batch_size 4 --steps 1 --workers 0"
COMMANDS = {
    "cut": "scripts/SliceMaker.py --inpath {raw} --outpath {out} --dataset kits --task tumor --workers 1",
    "train": "train.py --model malunet --train_data_path {slices} --checkpoint_path {out} --size 32 --crop 0 "
    f"--device cpu {SHORT}",
    "distil": "train_kd.py --tckpt {ckpt} --smodel malunet --kd kd --train_data_path {slices} --checkpoint_path {out} "
    f"--device cpu {SHORT}",
    "evaluate": "scripts/evaluate.py --ckpt {ckpt} --inpath {raw} --outpath {out}/scores.json --device cpu",
    "rescore": "scripts/evaluate.py --ckpt {ckpt} --test_data_path {slices} --outpath {out}/scores.json --device cpu",
    "predict": "scripts/predict.py --ckpt {ckpt} --inpath {raw} --outpath {out} --device cpu",
    "export": "scripts/export.py --ckpt {ckpt} --outpath {out}",
    "compare": "scripts/benchmark.py --tckpt {ckpt} --smodel malunet --methods kd --seeds 0 --longer 0 --no_distances "
    f"--train_data_path {{slices}} --outpath {{out}} --device cpu {SHORT}",
}
"""Each works where nothing is wrong."""


@dataclass(frozen=True)
class Fault:
    """name: of the test; command: of `COMMANDS`, or a script; words: added to it, later ones override; spoil: what is
    done before; says: the file, the fault and the remedy, in their order in the one line that is printed.

    midway: found while cases are worked through, so that the results of earlier ones stay.
    """

    name: str
    command: str
    words: str = ""
    spoil: Callable[[Place], object] = lambda place: None
    says: Sequence[str] = ()
    midway: bool = False
    real: bool = False

    def __str__(self) -> str:
        return f"{self.command.rpartition('/')[2].split('.')[0]}: {self.name}"

    def line(self, place: Place) -> list[str]:
        """The words of the command."""
        text = f"{COMMANDS.get(self.command, self.command)} {self.words}"
        return [word.format(**{name: getattr(place, name) for name in PLACES}) for word in text.split()]


IMAGE, SEGMENTATION = "raw/case_00001/imaging.nii.gz", "raw/case_00001/segmentation.nii.gz"
MANIFEST, LIST = "slices/train/cases.json", "slices/train/kits_tumor_slices.npy"
PLACES = ("raw", "slices", "ckpt", "out", "root")


def write(path: str, content: str | bytes = b"") -> Callable[[Place], object]:
    """A file of this content, in place of one that is there."""

    def spoil(place: Place) -> None:
        target = place.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def truncate(path: str, share: float = 0.5) -> Callable[[Place], object]:
    def spoil(place: Place) -> None:
        content = (place.root / path).read_bytes()
        (place.root / path).write_bytes(content[: int(share * len(content))])

    return spoil


def remove(pattern: str) -> Callable[[Place], object]:
    def spoil(place: Place) -> None:
        found = list(place.root.glob(pattern))
        assert found, pattern
        for path in found:
            path.unlink()

    return spoil


def edit(path: str, change: Callable[[Any], object]) -> Callable[[Place], object]:
    """Change the content of a JSON file."""

    def spoil(place: Place) -> None:
        content = json.loads((place.root / path).read_text())
        change(content)
        (place.root / path).write_text(json.dumps(content))

    return spoil


def label(change: Callable[[Any], Any], name: str = "case_00001/segmentation.nii.gz") -> Callable[[Place], object]:
    """Change the array of a NIfTI file in `raw`."""

    def spoil(place: Place) -> None:
        image = nib.load(place.raw / name)
        array = change(np.asanyarray(image.dataobj))
        nib.save(nib.Nifti1Image(array, image.affine), place.raw / name)

    return spoil


def image(change: Callable[[Any], Any]) -> Callable[[Place], object]:
    return label(change, "case_00001/imaging.nii.gz")


def no_tumour(place: Place) -> None:
    for path in place.raw.glob("*/segmentation.nii.gz"):
        label(lambda array: array.clip(0, 1), f"{path.parent.name}/segmentation.nii.gz")(place)


def slice_of(**arrays: Any) -> Callable[[Place], object]:
    """Every training slice holds just these arrays; without a manifest, as in an archive from elsewhere."""

    def spoil(place: Place) -> None:
        (place.slices / "train" / "cases.json").unlink()
        for path in place.slices.glob("train/*.npz"):
            np.savez(path, **arrays)

    return spoil


def checkpoint(content: Mapping[str, Any]) -> Callable[[Place], object]:
    """A checkpoint of other content."""
    return lambda place: torch.save(dict(content), place.ckpt)


def other_results(place: Place) -> None:
    """A summary and a table of another network."""
    content = {"model": "enet", "task": "tumor", "protocol": "whole volumes", "cases": 1, "seen_in_training": []}
    write("results.json", json.dumps(content))(place)
    write("results.csv", "case,region,dice\n0,tumor,0.5\n")(place)


def exported(share: float = 1.0, **change: Any) -> Callable[[Place], object]:
    """An ONNX file, model.onnx, of which a share is there and whose metadata are changed."""

    def spoil(place: Place) -> None:
        small_onnx(place.root / "model.onnx", {**CONTENT, **change})
        truncate("model.onnx", share)(place)

    return spoil


def on_a_slice(act: Callable[[Path], object]) -> Callable[[Place], object]:
    """Do something to a slice file that is trained on."""
    return lambda place: act(place.slices / "train" / str(np.load(place.root / LIST, allow_pickle=False)[0]))


def write_text(path: Path) -> None:
    path.write_text("no slice")


def empty_folder(place: Place) -> None:
    (place.root / "empty").mkdir()


def cut_again(path: Path) -> None:
    """With another image, by something that keeps no digests."""
    with np.load(path, allow_pickle=False) as content:
        np.savez(path, ct=content["ct"] + 1, mask=content["mask"])


def without_segmentation(place: Place) -> None:
    remove("raw/*/segmentation.nii.gz")(place)


def other_shape(place: Place) -> None:
    save(ct_and_label((9, 20, 24))[1], place.raw / "case_00000" / "segmentation.nii.gz")


def twice(split: dict[str, list[str]]) -> None:
    split["test"] = [*split["test"], *split["train"]]
