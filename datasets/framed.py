"""Slices as they are loaded and cached: framed, in integers, before windows and augmentation, which come in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.augment import Augment, Rngs
from datasets.frame import Frame
from datasets.slices.answers import FLOOR
from datasets.window import linear_map, window_image
from utils.batch import Batch, Stored
from utils.errors import UserError
from utils.stored_as import StoredAs
from utils.transfer import sent

LOWEST, HIGHEST = -32768, 32767
"""Of int16. The lowest pads, as it is not above any window's lower end."""
LEVELS = (-32767.0, 32767.0)
"""The window of slices that the frame resizes: what is resized are windowed values, kept in so many levels."""


class Framed(NamedTuple):
    """values: int16 [B, 1, h, w]; maps: factor and shift (`linear_map`) of each, float32 [B, 2]; mask: uint8 [B, h, w].

    Where the frame only crops, the values are the source's, and their windowed image is exact. Where it resizes, they
    are the resized image in `LEVELS`, at most 1.6e-5 away from it, in an image that spans -1 to 1.

    answers: a teacher's probabilities, float32 [B, C, h, w]; stored: what the source holds, float32 [B, 1, h, w], as
    `origins` say.
    """

    values: Tensor
    maps: Tensor
    mask: Tensor
    cases: list[str]
    answers: Tensor | None = None
    stored: Tensor | None = None
    origins: list[StoredAs] | None = None

    @staticmethod
    def joined(slices: Sequence[Framed]) -> Framed:
        """A batch of single ones; UserError if they differ in size, which native sizes without a crop allow."""
        values, maps, masks, cases, answers, stored, origins = zip(*slices, strict=True)
        names = [name for each in cases for name in each]
        refuse_sizes({each.shape[-2:] for each in values}, names)
        return Framed(
            torch.cat(values),
            torch.cat(maps),
            torch.cat(masks),
            names,
            None if answers[0] is None else torch.cat(answers),
            None if stored[0] is None else torch.cat(stored),
            None if origins[0] is None else [origin for each in origins for origin in each],
        )

    def to(self, device: torch.device) -> Framed:
        """The same on another device."""
        values, maps, mask = (sent(each, device) for each in self[:3])
        answers, stored = (None if each is None else sent(each, device) for each in (self.answers, self.stored))
        return self._replace(values=values, maps=maps, mask=mask, answers=answers, stored=stored)

    def batch(self, augment: Augment, rngs: Rngs) -> Batch:
        """Windowed and augmented, on the device that it is on.

        What moves the image moves answers and stored values, and what changes its intensities leaves them: the teacher
        answers for the clean image.
        """
        further = [each for each in (self.answers, self.stored) if each is not None]
        image = windowed(self.values, self.maps)
        # Joining a single part would copy it.
        image, mask = augment.of_batch(torch.cat([image, *further], dim=1) if further else image, self.mask, rngs)
        if not further:
            return Batch(image, mask, self.cases)
        image, *moved = image.split([1, *(each.shape[1] for each in further)], dim=1)
        answers = stored = None
        if self.answers is not None:
            answers = moved.pop(0).log().clamp_(min=FLOOR)
        if self.origins is not None:
            stored = Stored(moved.pop(0).round().to(torch.int16), self.origins)
        return Batch(image.contiguous(), mask, self.cases, answers=answers, stored=stored)


def windowed(values: Tensor, maps: Tensor) -> Tensor:
    """float32 [B, 1, h, w] in [-1, 1], of values and maps as `Framed` has them: the arithmetic of `window_image`."""
    factors, shifts = maps[:, :, None, None, None].unbind(1)
    return values.float().mul_(factors).sub_(shifts).clamp_(-1, 1)


def framed_image(ct: NDArray[np.int16], window: tuple[float, float], frame: Frame) -> tuple[Tensor, Tensor]:
    """values [1, 1, h, w] and maps [1, 2] of a slice [H, W]; window: in its units."""
    if frame.resizes(ct.shape) or window[0] < LOWEST:
        image = frame.image(torch.from_numpy(window_image(ct, *window))[None])
        values, window = image.mul(HIGHEST).round_().to(torch.int16), LEVELS
    else:
        values = frame.image(torch.from_numpy(ct)[None], pad=LOWEST)
    return values[None], torch.tensor([linear_map(*window)])


def refuse_sizes(shapes: set[torch.Size], cases: Sequence[str]) -> None:
    """UserError if there is more than one shape among the slices of a batch."""
    if len(shapes) > 1:
        raise UserError(
            f"slices of {', '.join(sorted(set(cases)))} differ in size; give --size, --crop or --batch_size 1"
        )
