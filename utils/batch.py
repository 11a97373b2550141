"""Batches of slices, as loaders make them and losses take them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from utils.stored_as import StoredAs
from utils.transfer import sent

# Every pixel of the mask of a slice without a mask.
UNLABELLED = 255


class Stored(NamedTuple):
    """What the sources hold of the slices of a batch: values int16 [B, 1, H, W], and how each is stored.

    The values lie as the image's pixels do, and are not clipped to a window. The spacing is that of these pixels.
    """

    values: Tensor
    origins: list[StoredAs]

    @staticmethod
    def joined(slices: Sequence[Stored]) -> Stored:
        """A batch of single slices, whose values are [1, H, W] each."""
        return Stored(torch.stack([each.values for each in slices]), [each.origins[0] for each in slices])

    def to(self, device: torch.device) -> Stored:
        """A copy on another device; from pinned memory it does not block."""
        return self._replace(values=self.values.to(device, non_blocking=True))


class Batch(NamedTuple):
    """image: float32 [B, 1, H, W] in [-1, 1]; mask: uint8 [B, H, W], class indices; cases: B names.

    Where a slice has no mask, every pixel of `mask` is `UNLABELLED`. After `mixup` a share of 0.5 to 1 of an image is
    the slice that `mask` and `cases` describe, and the rest another slice, of `other_mask`.

    answers: what a teacher on disk says of the image: log-probabilities, float32 [B, C, H, W], not normalised. stored:
    for a teacher that does not take the window's values.

    To train a volumetric network, images are blocks of slices, [B, 1, D, H, W], and masks [B, D, H, W]. For a
    volumetric teacher, `block` [B, D, H, W] has the slices around each image, which is the one in their middle.

    parts: of a batch that several processes share, how many of its samples each has; this one holds only its own.
    """

    image: Tensor
    mask: Tensor
    cases: list[str]
    other_mask: Tensor | None = None
    share: float = 1.0
    answers: Tensor | None = None
    stored: Stored | None = None
    block: Tensor | None = None
    parts: tuple[int, ...] = ()

    def part(self, place: slice) -> Batch:
        """Some of the samples, of a batch without stored values."""
        other, answers, block = (
            None if value is None else value[place] for value in (self.other_mask, self.answers, self.block)
        )
        own = self._replace(image=self.image[place], mask=self.mask[place], cases=self.cases[place])
        return own._replace(other_mask=other, answers=answers, block=block)

    @property
    def slices(self) -> int:
        """How many it teaches."""
        return math.prod(self.mask.shape[:-2])

    def to(self, device: torch.device) -> Batch:
        """A copy on another device; from pinned memory it does not block."""
        image, mask = self.image.to(device, non_blocking=True), self.mask.to(device, non_blocking=True)
        other = None if self.other_mask is None else self.other_mask.to(device, non_blocking=True)
        answers = None if self.answers is None else self.answers.to(device, non_blocking=True)
        stored = None if self.stored is None else self.stored.to(device)
        block = None if self.block is None else self.block.to(device, non_blocking=True)
        return self._replace(image=image, mask=mask, other_mask=other, answers=answers, stored=stored, block=block)


def part_sizes(samples: int, parts: int) -> tuple[int, ...]:
    """How many of a batch's samples are in each of its parts, the first ones taking what does not divide."""
    return tuple(samples // parts + (number < samples % parts) for number in range(parts))


def middle(block: int) -> int:
    """Which slice of a block is the one that it lies around; the earlier of two."""
    return (block - 1) // 2


def most_probable(scores: Tensor) -> Tensor:
    """The class with the highest probability or logit, [B, C, H, W] -> int64 [B, H, W]; the first one of a tie."""
    # On a CPU argmax takes ten times as long where the classes lie far apart in memory.
    return scores.max(dim=1).indices


def has_mask(mask: Tensor) -> Tensor:
    """bool [B] for masks [B, ..., H, W]: False where a slice, or a block of them, is `UNLABELLED`."""
    # One pixel decides, as a mask is unlabelled in all its pixels or in none.
    return mask.flatten(1)[:, 0] != UNLABELLED


def mixup(batch: Batch, alpha: float, rng: np.random.Generator, labelled: NDArray[np.bool_] | None = None) -> Batch:
    """Each slice mixed with another of the batch, labelled ones with labelled, unlabelled ones with unlabelled.

    One share for the batch, drawn from Beta(alpha, alpha), of which the larger part stays with the slice itself.
    Probabilities on disk are mixed in the same shares, where a teacher's network would be shown the mixed image.
    H. Zhang, M. Cisse, Y. N. Dauphin, D. Lopez-Paz: mixup: Beyond Empirical Risk Minimization, ICLR 2018
    (arXiv 1710.09412).

    labelled: bool [B], which of them have a mask; by default it is looked up, for which an accelerator is waited for.
    """
    share = float(rng.beta(alpha, alpha))
    share = max(share, 1 - share)
    if labelled is None:
        labelled = has_mask(batch.mask).cpu().numpy()
    others = np.arange(len(labelled))
    for group in (np.flatnonzero(labelled), np.flatnonzero(~labelled)):
        others[group] = rng.permutation(group)
    order = sent(torch.from_numpy(others), batch.image.device)
    image, answers, block = share * batch.image + (1 - share) * batch.image[order], batch.answers, batch.block
    if answers is not None and share < 1:
        # log(share * p + (1 - share) * q), of their logarithms.
        answers = torch.logaddexp(answers + math.log(share), answers[order] + math.log(1 - share))
    if block is not None:
        block = share * block + (1 - share) * block[order]
    return batch._replace(image=image, other_mask=batch.mask[order], share=share, answers=answers, block=block)
