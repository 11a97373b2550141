"""Augmentation of one framed slice. All randomness comes from the generator passed in.

What is on further channels of the image, such as a teacher's answers on disk, moves with it and keeps its values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.registry import match_name

Augment = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]

ROTATION = math.radians(15)
SCALES = (0.85, 1.15)
SHIFT = 0.06
"""Of the side."""
GAMMAS = (0.7, 1.5)
INTENSITIES = 2
"""The place among the deformations of the one that moves nothing."""
NOISE = 0.1
"""The largest standard deviation: 5 % of the window, which spans -1 to 1."""


def unchanged(image: Tensor, mask: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """image: float [K, h, w], of which the first is the image; mask: uint8 [h, w]."""
    return image, mask


def mild(image: Tensor, mask: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Every slice turned, scaled and shifted a little, half of them with another gamma, a quarter with noise.

    No flips and no quarter turns, for anatomy has a left and a right.
    """
    moved, mask = _move(image, mask, rng)
    image, others = moved[:1], moved[1:]
    if rng.random() < 0.5:
        low, high = map(math.log, GAMMAS)
        gamma = math.exp(rng.uniform(low, high))
        image = 2 * ((image + 1) / 2).clamp_(0, 1).pow_(gamma) - 1
    if rng.random() < 0.25:
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        image = image.add(torch.from_numpy(noise), alpha=rng.uniform(0, NOISE))
    return _with_others(image.clamp(-1, 1), others), mask


def _with_others(image: Tensor, others: Tensor) -> Tensor:
    return torch.cat([image, others]) if len(others) else image


def _move(image: Tensor, mask: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A random affine map of all; every length is a share of a side."""
    angle, scale = rng.uniform(-ROTATION, ROTATION), rng.uniform(*SCALES)
    down, right = rng.uniform(-SHIFT, SHIFT, 2)
    height, width = mask.shape
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    # Coordinates run from -1 to 1 along both sides, so a turn needs their ratio, and a shift counts twice.
    matrix = [[cos, -sin * height / width, 2 * right], [sin * width / height, cos, 2 * down]]
    theta = torch.tensor([matrix], dtype=image.dtype)
    grid = F.affine_grid(theta, [1, 1, height, width], align_corners=False)
    # The border is replicated: a crop ends inside the body, where black wedges would be seen in training alone.
    options: dict[str, Any] = {"padding_mode": "border", "align_corners": False}
    moved = F.grid_sample(image[None], grid, mode="bilinear", **options)[0]
    classes = F.grid_sample(mask[None, None].float(), grid, mode="nearest", **options)[0, 0]
    return moved, classes.to(torch.uint8)


def paper(image: Tensor, mask: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """The published augmentation: flips and quarter turns (half turns where the slice is not square)."""
    flips = [axis for axis in (-2, -1) if rng.random() < 0.5]
    turns = int(rng.integers(4)) if mask.shape[0] == mask.shape[1] else 2 * int(rng.integers(2))
    image, mask = (torch.rot90(torch.flip(x, flips), turns, (-2, -1)) for x in (image, mask))
    return image.contiguous(), mask.contiguous()


def strong(image: Tensor, mask: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """`paper`, then, for half of the slices, one of MONAI's affine, elastic and gamma transforms."""
    image, mask = paper(image, mask, rng)
    if rng.random() < 0.5:
        return image, mask
    number = int(rng.integers(3))
    transform = _deformations(*mask.shape)[number]
    transform.set_random_state(seed=int(rng.integers(2**32)))
    # The last one changes intensities, which the other channels have none of.
    changed, kept = (image[:1], image[1:]) if number == INTENSITIES else (image, image[:0])
    moved = transform({"image": changed, "mask": mask[None]})
    moved_image, moved_mask = moved["image"].as_tensor(), torch.as_tensor(moved["mask"])
    image = torch.cat([moved_image[:1].clamp(-1, 1), moved_image[1:], kept])
    return image, moved_mask.as_subclass(Tensor)[0].round().to(torch.uint8)


@cache
def _deformations(height: int, width: int) -> tuple[Any, ...]:
    """Of slices of this size; every length is a share of a side."""
    # MONAI takes seconds to import, and only `strong` needs it.
    from monai.transforms.intensity.dictionary import RandAdjustContrastd
    from monai.transforms.spatial.dictionary import Rand2DElasticd, RandAffined

    shared: dict[str, Any] = {
        "keys": ("image", "mask"),
        "mode": ("bilinear", "nearest"),
        "padding_mode": "border",
        "prob": 1.0,
        "rotate_range": ROTATION,
        "scale_range": 0.15,
    }
    side = min(height, width)
    return (
        RandAffined(translate_range=(SHIFT * height, SHIFT * width), **shared),
        Rand2DElasticd(spacing=(height / 12, width / 12), magnitude_range=(side / 384, side / 128), **shared),
        RandAdjustContrastd(keys="image", prob=1.0, gamma=GAMMAS),
    )


AUGMENTS: dict[str, Augment] = {"none": unchanged, "mild": mild, "paper": paper, "strong": strong}


def get_augment(name: str) -> Augment:
    """UserError with the available names if there is no augmentation `name`."""
    return AUGMENTS[match_name("augmentation", name, AUGMENTS)]
