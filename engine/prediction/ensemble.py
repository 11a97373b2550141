"""Several networks, and flipped images, that answer as one teacher."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.comparable import refuse_another_kind
from engine.device import choose_device
from engine.saved_segmenter import load_segmenter
from engine.segmenter import Segmenter
from networks.contract import Features, SegmentationNetwork
from utils.errors import UserError

FLIPS: tuple[tuple[int, ...], ...] = ((), (-2,), (-1,), (-2, -1))
"""The axes of [..., H, W] to flip: none, rows, columns, both."""


class Flipped(SegmentationNetwork):
    """Gives, as logits, the logarithm of the mean probabilities over the flips of an image in its plane."""

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__(network.classes)
        self.network, self.block = network, network.block

    def features(self, image: Tensor) -> Features:
        """The logits alone: maps of flipped images cannot be averaged."""
        answers = [self.network(image.flip(axes)).float().log_softmax(dim=1).flip(axes) for axes in FLIPS]
        return Features((), (), torch.stack(answers).logsumexp(dim=0))


@dataclass
class Ensemble(Segmenter):
    """A segmenter whose probabilities are the mean of its members', each in its own frame; it decides by the mean.

    All else is the first one's. The decision has no offsets, and both ends of a probability are exact to rounding:
    what a student is to learn is what the networks say.
    """

    members: tuple[Segmenter, ...] = ()

    def probabilities(
        self,
        image: NDArray[np.int16],
        window: tuple[float, float],
        batch_size: int = 8,
        parts: Iterable[slice] | None = None,
    ) -> Iterator[tuple[slice, Tensor]]:
        # Each member goes over them in a thread of its own, so that they cannot share what gives them one by one.
        batches = None if parts is None else list(parts)
        members = (member.probabilities(image, window, batch_size, batches) for member in self.members)
        for answers in zip(*members, strict=True):
            total = torch.stack([probabilities for _, probabilities in answers])
            yield answers[0][0], total.mean(dim=0)


def open_ensemble(paths: Sequence[Path], device: str, flips: bool = False) -> Ensemble:
    """`load_ensemble` on the device of that name."""
    return load_ensemble(paths, choose_device(device), flips)


def load_ensemble(paths: Sequence[Path], device: torch.device, flips: bool = False) -> Ensemble:
    """The networks in checkpoints as one; UserError for those that cannot answer for the same images and classes."""
    members = [replace(load_segmenter(path, device)[0], exact=True) for path in paths]
    first = members[0]
    advice = "write each one's answers to a folder of its own"
    for path, other in zip(paths, members, strict=True):
        refuse_another_kind(other, path, first, paths[0], advice)
        if other.network.block != first.network.block:
            raise UserError(f"{path}: sees {_seen(other)} at once, but {paths[0]} sees {_seen(first)}; {advice}")
    if flips:
        members = [replace(member, network=Flipped(member.network).eval()) for member in members]
    own = {name: getattr(first, name) for name in ("network", "model", "dataset", "label_map", "frame", "window")}
    return Ensemble(**own, channel=first.channel, hounsfield=first.hounsfield, members=tuple(members))


def _seen(segmenter: Segmenter) -> str:
    return f"{segmenter.network.block} slices" if segmenter.network.block else "one slice"
