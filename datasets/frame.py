"""The invertible map between a source slice and the network's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.errors import UserError

SMALLEST, LARGEST = 16, 4096
# Centre of the published crop, rows 50:434 and columns 60:444 of 512.
CENTRE = (242 / 512, 252 / 512)
NATIVE_CROP = 384


@dataclass(frozen=True)
class Frame:
    """Resize to size x size (0: keep the native size), then crop, with padding where the slice is smaller.

    crop: pixels along a side; None is the published 3/4 of `size` (384 for native sizes), 0 is no crop.
    """

    size: int = 512
    crop: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("size", self.size), ("crop", self.crop)):
            if value and not SMALLEST <= value <= LARGEST:
                raise UserError(f"--{name} {value}: must be 0 or from {SMALLEST} to {LARGEST}")

    @property
    def side(self) -> int:
        """Pixels a side of what the network sees; 0: those of the slice."""
        return self._crop_side() or self.size

    def resizes(self, shape: tuple[int, ...]) -> bool:
        """Whether slices [H, W] of this shape are resized before they are cropped."""
        return self._resized_shape(shape) != tuple(shape)

    def image(self, x: Tensor, pad: float = -1.0) -> Tensor:
        """Windowed float [N, H, W] -> [N, h, w]: bilinear, antialiased when shrinking.

        Of any type where it does not resize.
        """
        size = self._resized_shape(x.shape[-2:])
        if size != x.shape[-2:]:
            shrinks = size[0] < x.shape[-2] or size[1] < x.shape[-1]
            x = F.interpolate(x[:, None], size, mode="bilinear", align_corners=False, antialias=shrinks)[:, 0]
        return self._apply_crop(x, pad)

    def probabilities(self, x: Tensor) -> Tensor:
        """Class probabilities, float [C, H, W] -> [C, h, w], as `image`; what is padded is background."""
        background, others = self.image(x[:1], pad=1.0), self.image(x[1:], pad=0.0)
        return torch.cat([background, others])

    def labels(self, mask: Tensor) -> Tensor:
        """uint8 [N, H, W] -> [N, h, w], nearest neighbour."""
        size = self._resized_shape(mask.shape[-2:])
        if size != mask.shape[-2:]:
            mask = F.interpolate(mask[:, None], size, mode="nearest-exact")[:, 0]
        return self._apply_crop(mask, 0)

    def spacing(self, source: tuple[float, float, float], shape: tuple[int, ...]) -> tuple[float, float, float]:
        """(z, y, x) in mm of the frame's pixels, for slices of the source's spacing and the `shape`."""
        rows, columns = self._resized_shape(shape)
        return source[0], source[1] * (shape[0] / rows), source[2] * (shape[1] / columns)

    def back(self, values: Tensor, shape: tuple[int, int], outside: float | None = None) -> Tensor:
        """[N, C, h, w] -> [N, C, H, W], the `shape` of the source slice.

        outside: what lies outside the crop; by default probabilities of which all is background's.
        """
        size = self._resized_shape(shape)
        rows, columns = self._crop_window(size)
        full = values.new_full((*values.shape[:2], *size), 0.0 if outside is None else outside)
        if outside is None:
            full[:, 0] = 1
        inside = values[:, :, _within_crop(rows, size[0]), _within_crop(columns, size[1])]
        full[:, :, _within_slice(rows, size[0]), _within_slice(columns, size[1])] = inside
        if size == tuple(shape):
            return full
        return F.interpolate(full, tuple(shape), mode="bilinear", align_corners=False)

    def lost(self, mask: Tensor) -> int:
        """The number of True voxels of a source mask [N, H, W] that lie outside the crop."""
        kept = mask
        size = self._resized_shape(mask.shape[-2:])
        for axis, (window, length) in enumerate(zip(self._crop_window(size), size, strict=True), start=1):
            native = mask.shape[axis]
            resized = (torch.arange(native, device=mask.device) + 0.5) * (length / native)
            inside = (resized >= window[0]) & (resized < window[1])
            kept = kept.index_select(axis, inside.nonzero()[:, 0])
        return int(mask.sum()) - int(kept.sum())

    def crop_of(self, shape: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """(start, stop) of rows and columns of a resized slice that had the `shape`; what lies outside is padding."""
        return self._crop_window(self._resized_shape(shape))

    def to_dict(self) -> dict[str, Any]:
        return {"size": self.size, "crop": self.crop}

    @staticmethod
    def from_dict(content: dict[str, Any]) -> Frame:
        """What `to_dict` gave; TypeError or KeyError for anything else."""
        size, crop = content["size"], content["crop"]
        if not isinstance(size, int) or not isinstance(crop, int | None):
            raise TypeError("the frame's size and crop are not whole numbers")
        return Frame(size, crop)

    def _resized_shape(self, shape: tuple[int, ...]) -> tuple[int, int]:
        return (self.size, self.size) if self.size else (int(shape[0]), int(shape[1]))

    def _crop_side(self) -> int:
        return self.crop if self.crop is not None else self.size * 3 // 4 or NATIVE_CROP

    def _crop_window(self, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """The crop's (start, stop) along rows and columns of a resized slice; negative starts are padding."""
        crop = self._crop_side()
        if crop == 0:
            return (0, size[0]), (0, size[1])
        starts = []
        for length, centre in zip(size, CENTRE, strict=True):
            start = round(centre * length - crop / 2)
            slack = length - crop
            starts.append(min(max(start, min(0, slack)), max(0, slack)))
        return (starts[0], starts[0] + crop), (starts[1], starts[1] + crop)

    def _apply_crop(self, x: Tensor, pad: float) -> Tensor:
        height, width = x.shape[-2:]
        rows, columns = self._crop_window((height, width))
        inside = x[..., _within_slice(rows, height), _within_slice(columns, width)]
        margins = (
            max(0, -columns[0]),
            max(0, columns[1] - width),
            max(0, -rows[0]),
            max(0, rows[1] - height),
        )
        return F.pad(inside, margins, value=pad) if any(margins) else inside


def _within_slice(window: tuple[int, int], length: int) -> slice:
    """Where slice and crop overlap along one axis, in the slice's indices."""
    return slice(max(0, window[0]), min(length, window[1]))


def _within_crop(window: tuple[int, int], length: int) -> slice:
    """The same overlap in the crop's indices."""
    return slice(max(0, -window[0]), min(length, window[1]) - window[0])
