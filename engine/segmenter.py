"""A trained network with everything it needs to turn source pixels into labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datasets.frame import Frame
from datasets.labels import LabelMap
from datasets.raw import MR_LAYOUTS
from datasets.window import window_image
from distillation.teacher import Teacher, network_teacher
from engine.device import choose_device
from engine.options import PredictionOptions
from engine.runtime.files import ONNX, SAFETENSORS, TORCH, read_onnx, read_safetensors
from engine.runtime.network import RUNTIMES, open_network
from engine.sliding import mean_of_overlaps, overlapping_blocks
from networks import build, see_blocks
from networks.contract import SegmentationNetwork
from utils.ahead import ahead, one_behind
from utils.batch import most_probable
from utils.checkpoint import ADVICE, load_checkpoint, shorten
from utils.errors import UserError
from utils.stored_as import StoredAs

LARGEST_OFFSET = 100.0  # Of logits: the grid of decisions ends long before.
DESCRIPTION = ("model", "dataset", "task", "frame", "window", "cases", "config")
"""What a checkpoint must say about its weights."""

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


def load_segmenter(path: Path, device: torch.device) -> tuple[Segmenter, dict[str, Any]]:
    """The segmenter in a checkpoint or safetensors file, in eval mode on `device`, and the file's content.

    UserError for exported files, which hold no weights to train, to look into or to put on a GPU.
    """
    if path.suffix in (ONNX, TORCH):
        raise UserError(f"{path}: was exported; give the checkpoint, or the {SAFETENSORS} file, of the same network")
    content = read_safetensors(path) if path.suffix == SAFETENSORS else load_checkpoint(path)
    if missing := [key for key in DESCRIPTION if key not in content]:
        raise UserError(
            f"{path}: is not a checkpoint of this project: it holds weights, but no {', '.join(missing)} (its keys are "
            f"{shorten(content)}); {ADVICE}, or these weights to --init of train.py"
        )
    segmenter = describe_segmenter(path, content, lambda classes: build_as_trained(content, classes))
    load_weights(segmenter.network, content["weights"], f"{path}: its weights do not fit {content['model']}")
    segmenter.network.to(device).to(memory_format=segmenter.network.memory_format).eval()
    return segmenter, content


def build_as_trained(content: Mapping[str, Any], classes: int) -> SegmentationNetwork:
    """The network that a checkpoint names, without its weights."""
    return see_blocks(build(content["model"], classes), content["model"], content.get("block"))


def load_exported(path: Path, runtime: str) -> tuple[Segmenter, dict[str, Any]]:
    """The segmenter in an ONNX file, which runs on the CPU, and what the file says; a folded decision is its own."""
    model, content = read_onnx(path)
    content = {**content, "offsets": content["folded_offsets"]}
    segmenter = describe_segmenter(path, content, lambda classes: open_network(path, model, content, classes, runtime))
    return segmenter, content


def describe_segmenter(
    path: Path, content: Mapping[str, Any], make_network: Callable[[int], SegmentationNetwork]
) -> Segmenter:
    """What a file's content says, around the network that is made for its number of classes.

    UserError if it says nothing of the kind.
    """
    try:
        label_map = LabelMap.from_dict(content["task"])
        frame = Frame.from_dict(content["frame"])
        window = None if content["window"] is None else (float(content["window"][0]), float(content["window"][1]))
        # Checkpoints of before there were decisions have no offsets.
        offsets = tuple(map(float, content.get("offsets", ())))
        if not all(abs(offset) <= LARGEST_OFFSET for offset in offsets):
            raise ValueError("its decision has offsets that no grid has")
        if offsets and len(offsets) != len(label_map.classes):
            raise ValueError("its decision is of other classes")
        # Those of before the channel was recorded were trained on the first.
        channel = content.get("channel", 0 if content["dataset"] in ("msd", "heart") else None)
        # And those of before this was recorded are of CT where they have a window and the data set is not known as MR.
        hounsfield = bool(content.get("hounsfield", window is not None and content["dataset"] not in MR_LAYOUTS))
        network = make_network(label_map.num_classes)
    except UserError as error:
        message = str(error).removeprefix(f"{path}: ")
        fault = "" if message != str(error) else "is not a checkpoint of this project: "
        raise UserError(f"{path}: {fault}{message}") from None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        reason = shorten([f"{type(error).__name__}: {error}"])
        raise UserError(f"{path}: is not a checkpoint of this project ({reason}); {ADVICE}") from None
    return Segmenter(
        network, content["model"], content["dataset"], label_map, frame, window, offsets, channel, hounsfield
    )


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], fault: str, advice: str = ADVICE) -> None:
    """Load a state dict; UserError, from `fault` to `advice` with the keys between, where it is another network's."""
    own = network.state_dict()
    keys = {
        "lacking": [key for key in own if key not in weights],
        "unknown": [key for key in weights if key not in own],
        "of another shape": [key for key in own if key in weights and own[key].shape != weights[key].shape],
    }
    if wrong := [f"{len(names)} {kind} ({shorten(names)})" for kind, names in keys.items() if names]:
        raise UserError(f"{fault}: {'; '.join(wrong)}; {advice}")
    network.load_state_dict(weights)


def open_segmenter(options: PredictionOptions) -> tuple[Segmenter, dict[str, Any]]:
    """The segmenter in any file that holds one, on the device and with the decision that the options name."""
    segmenter, content = load_any(options.ckpt, options.device, options.runtime)
    return (replace(segmenter, offsets=()) if options.decision == "argmax" else segmenter), content


def load_any(path: Path, device: str, runtime: str = "onnxruntime") -> tuple[Segmenter, dict[str, Any]]:
    """The segmenter in a checkpoint, safetensors or ONNX file, and the file's content; runtime: of ONNX files."""
    if path.suffix == TORCH:
        raise UserError(f"{path}: is for torch.export.load; give the {ONNX} or {SAFETENSORS} file that lies beside it")
    if path.suffix != ONNX and runtime != RUNTIMES[0]:
        raise UserError(
            f"--runtime {runtime}: {path} runs in PyTorch; leave it out, or give the {ONNX} file of an export"
        )
    if path.suffix != ONNX:
        return load_segmenter(path, choose_device(device))
    if device not in ("auto", "cpu"):
        raise UserError(f"--device {device}: {path} runs on the CPU; leave it out, or give a checkpoint")
    return load_exported(path, runtime)
