"""A trained network with everything it needs to turn source pixels into labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.frame import Frame
from datasets.labels import LabelMap
from datasets.window import window_image
from distillation.teacher import Teacher, network_teacher
from engine.sliding import mean_of_overlaps, overlapping_blocks
from networks.contract import SegmentationNetwork
from utils.ahead import ahead, one_behind
from utils.batch import most_probable
from utils.stored_as import StoredAs

Place = TypeVar("Place")
"""Where an answer of the network belongs: a slice of slices, or the blocks' first slices."""


@dataclass
class Segmenter:
    """window is None where each volume has its own (percentiles of MR).

    offsets: of each foreground class, added to its logit before the decision; empty for none.
    channel: which one the network was trained on of images with several; None for images with one.
    hounsfield: whether its images are CT. The window does not say it: one can be given for MR too.
    exact: small probabilities keep digits of their own, where otherwise they have the rounding of 1.
    """

    network: SegmentationNetwork
    model: str
    dataset: str
    label_map: LabelMap
    frame: Frame
    window: tuple[float, float] | None
    offsets: tuple[float, ...] = ()
    channel: int | None = None
    hounsfield: bool = True
    exact: bool = False

    @property
    def device(self) -> torch.device:
        """Where the network expects its images: the CPU for one without parameters of its own."""
        return next(self.network.parameters(), torch.empty(0)).device

    def teacher(self) -> Teacher:
        """What a student learns from."""
        return network_teacher(self.network)

    def for_case(self, name: str, stored_as: StoredAs | None) -> Segmenter:
        """The segmenter for the images of one case, where a network has to know how these are stored."""
        return self

    def with_network(self, network: SegmentationNetwork, model: str) -> Segmenter:
        """The same task, frame and window for another network of this project."""
        return replace(self, network=network, model=model)

    def description(self) -> dict[str, Any]:
        """What a checkpoint records about the network, in plain types."""
        return {
            "model": self.model,
            "classes": self.label_map.num_classes,
            "dataset": self.dataset,
            "task": self.label_map.to_dict(),
            "frame": self.frame.to_dict(),
            "window": None if self.window is None else list(self.window),
            "offsets": list(self.offsets),
            "channel": self.channel,
            "hounsfield": self.hounsfield,
            **({"block": self.network.block} if self.network.block else {}),
        }

    def source_labels(self) -> NDArray[np.uint8]:
        """The label to write for each class index: the first of the source's labels that make the class."""
        return np.array([0, *(labels[0] for labels in self.label_map.labels)], np.uint8)

    def framed_probabilities(
        self,
        image: NDArray[np.int16],
        window: tuple[float, float],
        batch_size: int = 8,
        parts: Iterable[slice] | None = None,
    ) -> Iterator[tuple[slice, Tensor]]:
        """Class probabilities in the frame, [n, C, h, w], batch by batch, for slices [N, H, W] that are neighbours.

        window: in the image's stored units. parts: the batches, each given when its slices are there, in place of
        `batch_size` after `batch_size` slices.

        The network is left in the mode it was in, and the next batch is made ready while it runs. A volumetric one sees
        overlapping blocks, when all slices are there; a slice gets the mean of all that hold it.
        """
        parts = batches(len(image), batch_size) if parts is None else parts
        if not self.network.block:
            yield from self._answers(self._inputs(image, window, parts), len(image) > batch_size)
            return
        for _ in parts:
            pass  # Until the last slices are there.
        blocks = self._blocks(image, window, batch_size)
        yield from mean_of_overlaps(self._answers(blocks, len(image) > self.network.block), len(image))

    def of_logits(self, logits: Tensor) -> Tensor:
        """Class probabilities of logits [n, C, h, w]."""
        return logits.softmax(dim=1) if self.exact else class_probabilities(logits)

    def probabilities_of(
        self, image: NDArray[np.int16], picked: NDArray[np.int64], window: tuple[float, float], batch_size: int = 8
    ) -> Iterator[tuple[slice, Tensor]]:
        """The same of some slices of a volume, by their increasing indices, of which the parts are slices.

        A volumetric network sees their neighbours too.
        """
        if not self.network.block:
            yield from self.framed_probabilities(image[picked], window, batch_size)
            return
        for part, probabilities in self.framed_probabilities(image, window, batch_size):
            start, stop = np.searchsorted(picked, (part.start, part.stop)).tolist()
            if start < stop:
                yield slice(start, stop), probabilities[torch.from_numpy(picked[start:stop] - part.start)]

    def _answers(self, inputs: Iterator[tuple[Place, Tensor]], several: bool) -> Iterator[tuple[Place, Tensor]]:
        """Class probabilities in the place of what the network sees; several: whether these are more than one."""
        training = self.network.training
        self.network.eval()
        try:
            # A thread costs more than it saves where there is nothing to be ahead of.
            for place, values in ahead(inputs) if several else inputs:
                with torch.no_grad():
                    probabilities = self.of_logits(self.network(values).float())
                yield place, probabilities
        finally:
            self.network.train(training)

    def _inputs(
        self, image: NDArray[np.int16], window: tuple[float, float], parts: Iterable[slice]
    ) -> Iterator[tuple[slice, Tensor]]:
        """What the network sees, [n, 1, h, w] on its device, batch by batch."""
        for part in parts:
            values = torch.from_numpy(window_image(image[part], *window)).to(self.device)
            yield part, self.frame.image(values).unsqueeze(1)

    def _blocks(
        self, image: NDArray[np.int16], window: tuple[float, float], batch_size: int
    ) -> Iterator[tuple[list[int], Tensor]]:
        """What a volumetric network sees, [n, 1, D, h, w], as many blocks at once as `batch_size` slices are."""
        for starts, slices in overlapping_blocks(len(image), self.network.block, batch_size):
            values = torch.from_numpy(window_image(image[slices.ravel()], *window)).to(self.device)
            yield starts, self.frame.image(values).unflatten(0, slices.shape).unsqueeze(1)

    def probabilities(
        self,
        image: NDArray[np.int16],
        window: tuple[float, float],
        batch_size: int = 8,
        parts: Iterable[slice] | None = None,
    ) -> Iterator[tuple[slice, Tensor]]:
        """Class probabilities [n, C, H, W] at the slices' own resolution, batch by batch, for slices [N, H, W]."""
        height, width = image.shape[1:]
        for part, framed in self.framed_probabilities(image, window, batch_size, parts):
            yield part, self.frame.back(framed, (height, width))

    def segment(
        self,
        image: NDArray[np.int16],
        window: tuple[float, float],
        batch_size: int = 8,
        threshold: float | None = None,
        parts: Iterable[slice] | None = None,
        decided: Callable[[slice, NDArray[np.uint8]], None] | None = None,
    ) -> NDArray[np.uint8]:
        """Class indices [N, H, W] of slices [N, H, W] at their own resolution, decided as by `decide`.

        A batch is decided while the network runs on the next one. parts: as `framed_probabilities` has them; decided:
        gets each with its class indices, in their order, in another thread.
        """
        labels = np.empty(image.shape, np.uint8)
        framed = self.framed_probabilities(image, window, batch_size, parts)

        def decide(part: slice, probabilities: Tensor) -> None:
            labels[part] = self.decide_framed(probabilities, image.shape[1:], threshold)
            if decided is not None:
                decided(part, labels[part])

        if len(image) <= batch_size:
            for part, probabilities in framed:
                decide(part, probabilities)
            return labels
        with one_behind() as later:
            for part, probabilities in framed:
                later(decide, part, probabilities)
        return labels

    def decide_framed(
        self, probabilities: Tensor, shape: tuple[int, ...], threshold: float | None = None
    ) -> NDArray[np.uint8]:
        """Class indices [n, H, W] at the slices' own resolution, of probabilities in the frame, [n, C, h, w].

        What `decide` makes of `Frame.back`, up to rounding, in a fraction of the time: by how much each class is
        ahead of the background is linear in the probabilities, so that it can be carried back in their place, and
        only of slices that have any foreground.
        """
        height, width = shape
        if threshold is not None and probabilities.shape[1] > 2:
            return self.decide(self.frame.back(probabilities, (height, width)), threshold)
        if threshold is not None:
            margins, outside = 1 - probabilities[:, :1] - threshold, -threshold
        else:
            weighted = self.weighted(probabilities)
            margins, outside = weighted[:, 1:] - weighted[:, :1], -1.0
        labels = np.zeros((len(margins), height, width), np.uint8)
        found = (margins > 0).flatten(1).any(dim=1)
        if found.any():
            carried = self.frame.back(margins[found], (height, width), outside)
            labels[found.cpu().numpy()] = highest_margin(carried).cpu().numpy()
        return labels

    def decide(self, probabilities: Tensor, threshold: float | None = None) -> NDArray[np.uint8]:
        """Class indices [n, H, W] of probabilities [n, C, H, W].

        The most probable class wins, after the offsets. With a threshold, which goes before these, a pixel is
        foreground where 1 - P(background) exceeds it.
        """
        if threshold is None:
            decided = most_probable(self.weighted(probabilities))
        else:
            foreground = 1 - probabilities[:, 0] > threshold
            decided = (most_probable(probabilities[:, 1:]) + 1) * foreground
        return decided.to(torch.uint8).cpu().numpy()

    def weighted(self, probabilities: Tensor) -> Tensor:
        """Probabilities [n, C, H, W], not normalised, of logits with the offsets added to them."""
        if not any(self.offsets):
            return probabilities
        factors = [1.0, *map(math.exp, self.offsets)]
        return probabilities * probabilities.new_tensor(factors)[:, None, None]

    def describe_decision(self, threshold: float | None = None) -> str:
        """How `decide` decides, in words."""
        if threshold is None and len(self.offsets) == 1:
            threshold = 1 / (1 + math.exp(self.offsets[0]))
        if threshold is not None:
            return f"foreground where its probability exceeds {threshold:.4g}"
        if not self.offsets:
            return "the most probable class"
        offsets = (f"{name} {offset:+.2f}" for name, offset in zip(self.label_map.classes, self.offsets, strict=True))
        return f"the most probable class, with {', '.join(offsets)} on the logits"


def batches(count: int, size: int) -> list[slice]:
    """`count` slices, `size` at a time."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def class_probabilities(logits: Tensor) -> Tensor:
    """softmax over the classes of [n, C, h, w]; of two, which lie side by side in memory, in a fraction of the time."""
    if logits.shape[1] != 2:
        return logits.softmax(dim=1)
    foreground = torch.sigmoid(logits[:, 1] - logits[:, 0])
    return torch.stack([1 - foreground, foreground], dim=1)


def highest_margin(margins: Tensor) -> Tensor:
    """uint8 [n, H, W]: the class that is furthest ahead of the background, 0 where none is.

    margins: [n, C - 1, H, W], of class 1 and up; the first one of a tie.
    """
    best = margins[:, 0]
    labels = (best > 0).to(torch.uint8)
    for index in range(1, margins.shape[1]):
        ahead_of_all = margins[:, index] > best.clamp(min=0)
        labels.masked_fill_(ahead_of_all, index + 1)
        best = torch.maximum(best, margins[:, index])
    return labels
