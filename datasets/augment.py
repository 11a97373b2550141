"""Augmentation of a batch of framed slices. All randomness comes from generators passed in, one for each slice.

Images are float [B, 1, h, w], in [-1, 1], or [B, 1 + n, h, w] with n maps after the slice that move as it does, and
whose values stay what they are. A slice becomes the same in a batch as alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.registry import match_name
from utils.transfer import sent

Rngs = Sequence[np.random.Generator]
OfBatch = Callable[[Tensor, Tensor, Rngs], tuple[Tensor, Tensor]]

ROTATION = math.radians(15)
SCALES = (0.85, 1.15)
SHIFT = 0.06
"""Of the side."""
GAMMAS = (0.7, 1.5)
AS_FLIPS = (frozenset[int](), frozenset({-1}), frozenset({-2, -1}), frozenset({-2}))
"""The axes that so many quarter turns flip, after which odd ones transpose, as in `torch.rot90`."""
NOISE = 0.1
"""The largest standard deviation: 5 % of the window, which spans -1 to 1."""


@dataclass(frozen=True)
class Augment:
    """One of the augmentations, for batches and, called, for a single slice."""

    of_batch: OfBatch
    """images as above, masks uint8 [B, h, w] and B generators -> both moved, new or the same tensors."""

    def __call__(self, image: Tensor, mask: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """image: [1 + n, h, w]; mask: uint8 [h, w]."""
        images, masks = self.of_batch(image[None], mask[None], [rng])
        return images[0], masks[0]


def unchanged(images: Tensor, masks: Tensor, rngs: Rngs) -> tuple[Tensor, Tensor]:
    return images, masks


def mild(images: Tensor, masks: Tensor, rngs: Rngs) -> tuple[Tensor, Tensor]:
    """Every slice turned, scaled and shifted a little, half of them with another gamma, a quarter with noise.

    No flips and no quarter turns, for anatomy has a left and a right.
    """
    device, (height, width) = images.device, masks.shape[-2:]
    matrices = [_affine(rng, height, width) for rng in rngs]
    images, masks = _move(images, masks, sent(torch.tensor(matrices, dtype=torch.float32), device))
    slices = images[:, 0]
    gammas, noises = {}, {}
    for i, rng in enumerate(rngs):
        if rng.random() < 0.5:
            low, high = map(math.log, GAMMAS)
            gammas[i] = math.exp(rng.uniform(low, high))
        if rng.random() < 0.25:
            noise = _noise(rng, height, width, device)
            noises[i] = noise, rng.uniform(0, NOISE)
    if gammas:
        chosen = sent(torch.tensor([*gammas]), device)
        exponents = sent(torch.tensor([*gammas.values()], dtype=torch.float32), device)[:, None, None]
        shares = slices.index_select(0, chosen).add_(1).div_(2).clamp_(0, 1)
        # As `pow`, in a quarter of its time.
        slices.index_copy_(0, chosen, shares.log_().mul_(exponents).exp_().mul_(2).sub_(1))
    for i, (noise, deviation) in noises.items():
        slices[i].add_(noise, alpha=deviation)
    slices.clamp_(-1, 1)
    return images, masks


def _affine(rng: np.random.Generator, height: int, width: int) -> list[list[float]]:
    """A random map from places in the moved slice to places in the source; every length is a share of a side."""
    angle, scale = rng.uniform(-ROTATION, ROTATION), rng.uniform(*SCALES)
    down, right = rng.uniform(-SHIFT, SHIFT, 2)
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    # Coordinates run from -1 to 1 along both sides, so a turn needs their ratio, and a shift counts twice.
    return [[cos, -sin * height / width, 2 * right], [sin * width / height, cos, 2 * down]]


def _move(images: Tensor, masks: Tensor, matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Both through affine maps [B, 2, 3], into new tensors."""
    (height, width), device = masks.shape[-2:], images.device
    rows, columns = (
        torch.arange(1 - side, side, 2, device=device, dtype=torch.float32).div_(side) for side in (height, width)
    )
    # Sums of a row and a column, as complex numbers x + iy: F.affine_grid multiplies matrices, which takes longer, and
    # rounds a slice in a batch as it would not round it alone.
    of_columns = torch.complex(*(matrices[:, axis, 0, None] * columns for axis in (0, 1)))
    of_rows = torch.complex(*(matrices[:, axis, 1, None] * rows + matrices[:, axis, 2, None] for axis in (0, 1)))
    grid = torch.view_as_real(of_rows[:, :, None] + of_columns[:, None])
    # The border is replicated: a crop ends inside the body, where black wedges would be seen in training alone.
    options: dict[str, Any] = {"padding_mode": "border", "align_corners": False}
    moved = F.grid_sample(images, grid, mode="bilinear", **options)
    classes = F.grid_sample(masks[:, None].float(), grid, mode="nearest", **options)[:, 0]
    return moved, classes.to(torch.uint8)


def _noise(rng: np.random.Generator, height: int, width: int, device: torch.device) -> Tensor:
    """Standard normal [h, w], drawn on the device: NumPy would take twice as long, and keep an accelerator waiting."""
    drawing = torch.Generator(device).manual_seed(int(rng.integers(2**63)))
    return torch.randn(height, width, generator=drawing, device=device)


def paper(images: Tensor, masks: Tensor, rngs: Rngs) -> tuple[Tensor, Tensor]:
    """The published augmentation: flips and quarter turns (half turns where the slice is not square)."""
    square = masks.shape[-2] == masks.shape[-1]
    alike: dict[tuple[frozenset[int], bool], list[int]] = {}
    for i, rng in enumerate(rngs):
        flips = {axis for axis in (-2, -1) if rng.random() < 0.5}
        turns = int(rng.integers(4)) if square else 2 * int(rng.integers(2))
        flips ^= AS_FLIPS[turns]
        alike.setdefault((frozenset(flips), turns % 2 == 1), []).append(i)
    return _turned(images, alike), _turned(masks, alike)


def _turned(slices: Tensor, alike: dict[tuple[frozenset[int], bool], list[int]]) -> Tensor:
    """A copy of [B, ..., h, w] with the slices i of every (axes, transposed) flipped along these and transposed."""
    turned = torch.empty_like(slices)
    for (flips, transposed), places in alike.items():
        chosen = sent(torch.tensor(places), slices.device)
        moved = slices.index_select(0, chosen).flip([*flips])
        turned.index_copy_(0, chosen, moved.transpose(-2, -1) if transposed else moved)
    return turned


def strong(images: Tensor, masks: Tensor, rngs: Rngs) -> tuple[Tensor, Tensor]:
    """`paper`, then, for half of the slices, one of MONAI's affine, elastic and gamma transforms."""
    images, masks = paper(images, masks, rngs)
    for i, rng in enumerate(rngs):
        if rng.random() >= 0.5:
            images[i], masks[i] = _deformed(images[i], masks[i], rng)
    return images, masks


def _deformed(image: Tensor, mask: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    transform = _deformations(*mask.shape)[int(rng.integers(3))]
    transform.set_random_state(seed=int(rng.integers(2**32)))
    others = {"others": image[1:]} if len(image) > 1 else {}
    moved = transform({"image": image[:1], "mask": mask[None], **others})
    moved_image, moved_mask = moved["image"].as_tensor().clamp(-1, 1), torch.as_tensor(moved["mask"])
    image = torch.cat((moved_image, torch.as_tensor(moved["others"]).as_subclass(Tensor))) if others else moved_image
    return image, moved_mask.as_subclass(Tensor)[0].round().to(torch.uint8)


@cache
def _deformations(height: int, width: int) -> tuple[Any, ...]:
    """Of slices of this size; every length is a share of a side."""
    # MONAI takes seconds to import, and only `strong` needs it.
    from monai.transforms.intensity.dictionary import RandAdjustContrastd
    from monai.transforms.spatial.dictionary import Rand2DElasticd, RandAffined

    shared: dict[str, Any] = {
        "keys": ("image", "mask", "others"),
        "mode": ("bilinear", "nearest", "bilinear"),
        "allow_missing_keys": True,
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


AUGMENTS = {"none": Augment(unchanged), "mild": Augment(mild), "paper": Augment(paper), "strong": Augment(strong)}


def get_augment(name: str) -> Augment:
    """UserError with the available names if there is no augmentation `name`."""
    return AUGMENTS[match_name("augmentation", name, AUGMENTS)]
