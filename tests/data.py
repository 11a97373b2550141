"""Small raw cases on disk, and their slices. nibabel makes the orientations, not the code under test."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, ornt_transform
from numpy.typing import NDArray

from datasets.raw import open_layout
from datasets.slicing.options import SliceMakerOptions
from datasets.slicing.slicemaker import make_slices
from datasets.slicing.summary import SliceMakerSummary

KITS, LITS = "IPL", "LPS"
ORIENTATIONS = [
    "".join(codes) for axes in itertools.permutations(["LR", "AP", "IS"]) for codes in itertools.product(*axes)
]


def oriented(volume: NDArray[Any], codes: str, spacing: tuple[float, float, float] = (3.0, 0.8, 0.7)) -> Any:
    """A NIfTI image, stored along `codes`, of a volume [Z, Y, X] that grows to S, P, L; spacing z, y, x in mm."""
    dz, dy, dx = spacing
    affine = np.array([[0, 0, -dx, 90], [0, -dy, 0, 80], [dz, 0, 0, -70], [0, 0, 0, 1]], float)
    image = nib.Nifti1Image(volume, affine)
    image = image.as_reoriented(ornt_transform(axcodes2ornt("SPL"), axcodes2ornt(codes)))
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    return image


def voxels(path: Path) -> NDArray[Any]:
    """The stored voxels of a NIfTI file, in the file's order of axes."""
    return np.asanyarray(nib.load(path).dataobj)


def save(volume: NDArray[Any], path: Path, codes: str = KITS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(oriented(volume, codes), path)
    return path


def ct_and_label(shape: tuple[int, int, int] = (8, 20, 24), seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Noise in HU, an organ (1) in the lower half of the slices, and a tumour (2) inside it on two slices."""
    draws = np.random.default_rng(seed)
    image = draws.integers(-1000, 1000, shape).astype(np.int16)
    label = np.zeros(shape, np.uint8)
    label[: shape[0] // 2, 6:14, 5:15] = 1
    label[1:3, 8:11, 7:10] = 2
    return image, label


def kits_case(root: Path, number: int, shape: tuple[int, int, int] = (8, 20, 24), tumor: bool = True) -> Path:
    """One KiTS case folder, stored I, P, L."""
    image, label = ct_and_label(shape, number)
    folder = root / f"case_{number:05d}"
    save(image, folder / "imaging.nii.gz")
    save(label if tumor else label.clip(0, 1), folder / "segmentation.nii.gz")
    return folder


def loose_ct(folder: Path, *names: str) -> Path:
    """NIfTI files of 8 slices of noise, seeded by their position among the names."""
    for seed, name in enumerate(names):
        save(ct_and_label(seed=seed)[0], folder / f"{name}.nii.gz", "LPS")
    return folder


def cut_slices(raw: Path, out: Path, dataset: str = "kits", task: str = "tumor", **options: Any) -> SliceMakerSummary:
    """SliceMaker in this process."""
    layout = open_layout(dataset, raw)
    chosen = SliceMakerOptions(**{"workers": 1, **options})
    return make_slices(raw, out, layout, layout.label_map(task), chosen)


def cut_all(raw: Path, out: Path, dataset: str = "kits", **options: Any) -> SliceMakerSummary:
    """The same, with half of the slices of cases without segmentation."""
    return cut_slices(raw, out, dataset, **{"unlabelled": 0.5, **options})
