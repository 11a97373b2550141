"""Prediction of a volume in the source's labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datasets.raw.volume import Volume
from datasets.window import volume_window
from engine.segmenter import Segmenter


def predict_volume(
    segmenter: Segmenter,
    volume: Volume,
    batch_size: int = 8,
    threshold: float | None = None,
    components: int = 0,
) -> NDArray[np.uint8]:
    """Source labels [Z, Y, X] of a volume; components: how many of the largest ones to keep, 0 keeps all."""
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
