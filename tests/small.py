"""Networks, methods and slices small enough to train within a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.frame import Frame
from datasets.labels import LabelMap
from distillation import build_method, parse_methods
from distillation.method import Method
from engine.segmenter import Segmenter
from networks import build
from networks.contract import Channels, Features, SegmentationNetwork, resize
from utils.checkpoint import save_checkpoint


def make_method(text: str, student: Channels, teacher: Channels) -> Method:
    """The methods that a text such as "hlfd at:3.0" means, separated by spaces as on the command line."""
    return build_method(parse_methods(text.split()), student, teacher)


class TinyNetwork(SegmentationNetwork):
    """One convolution a stage, e1..e5 at strides `first_stride` * 1, 2, 4, 8, 16; no decoder channels: no decoder."""

    convolution: type[nn.Conv2d | nn.Conv3d] = nn.Conv2d

    def __init__(self, encoder: tuple[int, ...], decoder: tuple[int, ...], first_stride: int, classes: int) -> None:
        super().__init__(classes)
        self.encoder_channels, self.decoder_channels = encoder, decoder
        self.encoder_strides = tuple(first_stride * 2**i for i in range(5))
        self.down = nn.ModuleList(
            self.convolution(inputs, outputs, kernel_size=3, padding=1, stride=stride)
            for inputs, outputs, stride in zip((1, *encoder), encoder, (first_stride, 2, 2, 2, 2), strict=False)
        )
        self.up = nn.ModuleList(
            self.convolution(inputs, outputs, kernel_size=1)
            for inputs, outputs in zip((encoder[-1], *decoder), decoder, strict=False)
        )
        self.head = self.convolution(decoder[-1] if decoder else encoder[-1], classes, kernel_size=1)

    def features(self, image: Tensor) -> Features:
        x, encoder, decoder = image, [], []
        for down in self.down:
            x = F.leaky_relu(down(x))
            encoder.append(x)
        for up, skip in zip(self.up, encoder[3::-1], strict=False):
            x = up(self.resize(x, skip.shape[2:]))
            decoder.append(x)
        return Features(tuple(encoder), tuple(decoder or encoder[3::-1]), self.resize(self.head(x), image.shape[2:]))

    def resize(self, maps: Tensor, size: torch.Size) -> Tensor:
        return resize(maps, size)


class TinyVolume(TinyNetwork):
    """The same on blocks of 4 slices, whose maps are as much smaller along them as along rows and columns."""

    block = 4
    convolution = nn.Conv3d

    def resize(self, maps: Tensor, size: torch.Size) -> Tensor:
        return F.interpolate(maps, size=size, mode="trilinear")


class SmallNetwork(SegmentationNetwork):
    """Five strided convolutions up to stride 32 and four back, with batch norm, in a few thousand parameters."""

    def __init__(self, classes: int, width: int = 4) -> None:
        super().__init__(classes)
        self.encoder_channels = (width,) * 5
        self.decoder_channels = (width,) * 4
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU())
            for _ in range(5)
        )
        self.up = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(4))
        self.head = nn.Conv2d(width, classes, 1)

    def features(self, image: Tensor) -> Features:
        encoder = []
        x = self.stem(image)
        for stage in self.down:
            x = stage(x)
            encoder.append(x)
        decoder = []
        for stage, skip in zip(self.up, encoder[3::-1], strict=True):
            x = F.relu(stage(F.interpolate(x, skip.shape[2:]) + skip))
            decoder.append(x)
        logits = F.interpolate(self.head(x), image.shape[2:], mode="bilinear")
        return Features(tuple(encoder), tuple(decoder), logits)


def write_bare_archive(
    folder: Path, cases: int = 4, slices: int = 4, side: int = 64, dataset: str = "kits", task: str = "tumor"
) -> Path:
    """Slices in the published archive's form (float64 ct, int8 mask, no cases.json): a bright disc is tumour."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[:side, :side]
    names = []
    for case in range(cases):
        draws = np.random.default_rng(case)
        for index in range(slices):
            row, column = draws.uniform(0.35, 0.65, 2) * side
            distance = np.hypot(rows - row, columns - column)
            mask = (distance < side / 5).astype(np.int8) + (distance < side / 8)
            ct = draws.normal(0, 20, (side, side)) + 60 * mask
            name = f"{case:05d}_{index}.npz"
            np.savez_compressed(folder / name, ct=ct.astype(np.float64), mask=mask.astype(np.int8))
            names.append(name)
    np.save(folder / f"{dataset}_{task}_slices.npy", np.array(names))
    return folder


def equal_states(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Of tensors, and of what modules keep besides them."""

    def equal(value: Any, of_other: Any) -> bool:
        return torch.equal(value, of_other) if isinstance(value, Tensor) else value == of_other

    return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)


def save_untrained(path: Path, label_map: LabelMap, frame: Frame, **description: Any) -> Segmenter:
    """A checkpoint of an enet with random weights, for KiTS, that has seen no case; the segmenter that it holds."""
    torch.manual_seed(0)
    network = build("enet", label_map.num_classes)
    segmenter = Segmenter(network, "enet", "kits", label_map, frame, (-200.0, 300.0), **description)
    unseen: dict[str, Any] = {"config": {}, "cases": {"train": [], "val": []}}
    save_checkpoint(path, {**segmenter.description(), "weights": network.state_dict(), **unseen})
    return segmenter


def tiny(classes: int, pretrained: bool | Path = False) -> SmallNetwork:
    """A `SmallNetwork` as a registry's factory makes it."""
    return SmallNetwork(classes)
