"""From a volume to the source's labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datasets import open_layout
from datasets.layout import SUFFIXES, Case
from datasets.volume import Volume
from datasets.window import volume_window
from engine.segmenter import Segmenter
from utils.errors import UserError


def find_inputs(path: Path, dataset: str) -> list[Case]:
    """The cases to segment: one file, a folder in the layout of `dataset`, or a folder of NIfTI files."""
    if path.is_file():
        if not path.name.endswith(SUFFIXES):
            raise UserError(f"{path}: is not a .nii or .nii.gz file")
        return [_single(path)]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    try:
        return open_layout(dataset, path).find(path)
    except UserError as reason:
        files = sorted(file for file in path.iterdir() if file.name.endswith(SUFFIXES))
        images = [file for file in files if not _is_segmentation(file)]
        if not images:
            raise UserError(f"{reason}; nor does it hold images as .nii or .nii.gz files") from None
        return [_single(file) for file in images]


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _is_segmentation(path: Path) -> bool:
    """By the names that the known layouts give to labels."""
    stem = _stem(path)
    return stem == "segmentation" or stem.startswith("segmentation-") or stem.endswith("_gt")


def _single(path: Path) -> Case:
    """A lone file is named after itself; case_00007/imaging.nii.gz is 00007, as when its folder's parent is given."""
    stem = _stem(path)
    return Case(path.resolve().parent.name.removeprefix("case_") if stem == "imaging" else stem, path, None)


def predict_volume(
    segmenter: Segmenter,
    volume: Volume,
    batch_size: int = 8,
    threshold: float | None = None,
    components: int = 0,
) -> NDArray[np.uint8]:
    """Source labels [Z, Y, X] of a volume; `components` above 0 keeps that many of the largest ones."""
    window = volume_window(volume, segmenter.window)
    classes = segmenter.segment(volume.image, window, batch_size, threshold)
    if components:
        classes[~largest_components(classes > 0, components)] = 0
    return segmenter.source_labels()[classes]


def largest_components(mask: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """The `count` largest 26-connected components of a mask [Z, Y, X]."""
    numbered, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(numbered.ravel())
    sizes[0] = 0
    kept = np.argsort(sizes)[::-1][:count]
    return np.isin(numbered, kept[sizes[kept] > 0])
