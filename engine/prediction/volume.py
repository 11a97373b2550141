"""One volume in the source's labels, with what its results are written from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datasets.raw.nifti import Orientation
from datasets.raw.volume import Volume
from datasets.window import volume_window
from engine.segmenter import Segmenter


@dataclass
class Prediction:
    """classes: class indices [Z, Y, X]; window: in the image's stored units.

    probabilities: float32, the file's three axes and then the classes, column-major, where they were asked for.
    """

    volume: Volume
    window: tuple[float, float]
    classes: NDArray[np.uint8]
    probabilities: NDArray[np.float32] | None = None

    def without_image(self) -> Prediction:
        """For what does not need the pixels, so that the next volume can have their memory."""
        return replace(self, volume=replace(self.volume, image=self.volume.image[:0].copy()))


def predict_volume(
    segmenter: Segmenter,
    volume: Volume,
    batch_size: int = 8,
    threshold: float | None = None,
    with_probabilities: bool = False,
    parts: Iterable[slice] | None = None,
    decided: Callable[[slice, NDArray[np.uint8]], None] | None = None,
) -> Prediction:
    """Without the probabilities only those of a batch are in memory at any time.

    parts: the batches, each given when its slices are there; decided: gets each with its class indices, in their order.
    """
    window = volume_window(volume, segmenter.window)
    if not with_probabilities:
        classes = segmenter.segment(volume.image, window, batch_size, threshold, parts, decided)
        return Prediction(volume, window, classes)
    orientation = Orientation.of(volume.affine)
    classes = np.empty(volume.image.shape, np.uint8)
    shape = [classes.shape[axis] for axis in orientation.axes]
    stored = np.empty((*shape, segmenter.label_map.num_classes), np.float32, order="F")
    views = [orientation.array_view(each) for each in np.moveaxis(stored, -1, 0)]
    for part, probabilities in segmenter.probabilities(volume.image, window, batch_size, parts):
        classes[part] = segmenter.decide(probabilities, threshold)
        if decided is not None:
            decided(part, classes[part])
        for view, values in zip(views, probabilities.cpu().numpy().swapaxes(0, 1), strict=True):
            view[part] = values
    return Prediction(volume, window, classes, stored)


def to_source_labels(classes: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`table[classes]`, the labels of `Segmenter.source_labels`, in less than half the time."""
    labels = np.zeros_like(classes)
    for index, label in enumerate(table[1:], start=1):
        labels += (classes == index) * label
    return labels


def keep_largest(classes: NDArray[np.uint8], count: int) -> None:
    """Make background, in place, of all foreground but its `count` largest connected components."""
    filled = [np.flatnonzero(classes.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not len(filled[0]):
        return
    # Numbering the components takes 4 bytes a voxel, and most of a volume is background.
    box = classes[tuple(slice(places[0], places[-1] + 1) for places in filled)]
    box[~largest_components(box > 0, count)] = 0


def largest_components(mask: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """The `count` largest 26-connected components of a mask [Z, Y, X]."""
    numbered, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(numbered.ravel())
    sizes[0] = 0
    kept = np.argsort(sizes)[::-1][:count]
    return np.isin(numbered, kept[sizes[kept] > 0])
