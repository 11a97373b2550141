"""Pictures of slices with contours, for TensorBoard and reports."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Picture = NDArray[np.uint8]

TRUTH_COLOUR = (80, 220, 100)
PREDICTION_COLOUR = (255, 120, 60)


def grey_picture(image: NDArray[np.int16], window: tuple[float, float], zoom: int = 1) -> Picture:
    """uint8 [H * zoom, W * zoom, 3] of a slice [H, W] seen through a window."""
    low, high = window
    grey = ((np.clip(image, low, high) - low) / (high - low) * 255).astype(np.uint8)
    return np.repeat(_enlarge(grey, zoom)[..., None], 3, axis=2)


def draw_contours(picture: Picture, labels: NDArray[np.uint8], colour: tuple[int, int, int], zoom: int = 1) -> Picture:
    """The picture with the inner outline of every class in labels [H, W], about half a source pixel wide."""
    drawn = picture.copy()
    large = _enlarge(labels, zoom)
    for value in np.unique(large[large > 0]):
        region = large == value
        drawn[region & ~ndimage.binary_erosion(region, iterations=max(1, round(zoom / 2)))] = colour
    return drawn


def montage(pictures: Sequence[Picture], columns: int) -> Picture:
    """Equal-height pictures in rows of `columns`; missing places are black, other sizes are padded."""
    height = max(picture.shape[0] for picture in pictures)
    width = max(picture.shape[1] for picture in pictures)
    padded = [
        np.pad(picture, ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0))) for picture in pictures
    ]
    padded += [np.zeros_like(padded[0])] * (-len(padded) % columns)
    rows = [np.concatenate(padded[i : i + columns], axis=1) for i in range(0, len(padded), columns)]
    return np.concatenate(rows, axis=0)


def _enlarge(image: NDArray[np.uint8], zoom: int) -> NDArray[np.uint8]:
    return np.repeat(np.repeat(image, zoom, axis=0), zoom, axis=1)
