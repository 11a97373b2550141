"""Augmentation of one framed slice. All randomness comes from the generator passed in."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.registry import match_name

Augment = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]


def unchanged(image: Tensor, mask: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """image: float [1, h, w]; mask: uint8 [h, w]."""
    return image, mask


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
    transform = _deformations()[int(rng.integers(3))]
    transform.set_random_state(seed=int(rng.integers(2**32)))
    moved = transform({"image": image, "mask": mask[None]})
    moved_image, moved_mask = moved["image"].as_tensor(), torch.as_tensor(moved["mask"])
    return moved_image.clamp(-1, 1), moved_mask.as_subclass(Tensor)[0].round().to(torch.uint8)


@cache
def _deformations() -> tuple[Any, ...]:
    # MONAI takes seconds to import, and only `strong` needs it.
    from monai.transforms.intensity.dictionary import RandAdjustContrastd
    from monai.transforms.spatial.dictionary import Rand2DElasticd, RandAffined

    shared: dict[str, Any] = {
        "keys": ("image", "mask"),
        "mode": ("bilinear", "nearest"),
        "padding_mode": "border",
        "prob": 1.0,
        "rotate_range": np.pi / 12,
        "scale_range": 0.15,
    }
    return (
        RandAffined(translate_range=16, **shared),
        Rand2DElasticd(spacing=(32, 32), magnitude_range=(1, 3), **shared),
        RandAdjustContrastd(keys="image", prob=1.0, gamma=(0.7, 1.5)),
    )


AUGMENTS: dict[str, Augment] = {"none": unchanged, "paper": paper, "strong": strong}


def get_augment(name: str) -> Augment:
    """UserError with the available names if there is no augmentation `name`."""
    return AUGMENTS[match_name("augmentation", name, AUGMENTS)]
