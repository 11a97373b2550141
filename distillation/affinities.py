"""Relations inside a map: class means by the reference mask, and affinities of pixels or patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from networks.contract import resize

MAX_PATCHES = 32
"""Along a side; more would make affinity matrices larger than the networks. As many as 512 pixels at stride 16."""

NORM_FLOOR = 1e-6
"""Smallest norm that a vector is divided by, so that the gradient of an all-zero one stays bounded."""


def shrink_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """The mask, [B, H, W] class indices, at the size (h, w) of a map: nearest neighbour, int64 [B, h, w].

    Each pixel of the map takes the class at its centre. A lesion smaller than the stride can lie between the centres
    (one of 4 x 4 pixels at stride 8), and does not exist for a method that compares classes on that map.
    """
    return F.interpolate(mask[:, None].float(), size=tuple(size), mode="nearest-exact")[:, 0].long()


def class_means(maps: Tensor, mask: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The mean vector of each class in each image, and whether it has a pixel there.

    maps: [B, C, h, w]; mask: [B, H, W] class indices below `classes`, shrunk to the maps' size. Returns means
    [B, classes, C], 0 where a class has no pixel, and present, bool [B, classes].
    """
    members = F.one_hot(shrink_mask(mask, maps.shape[2:]).flatten(1), classes).to(maps.dtype)
    sums = torch.einsum("bnk,bcn->bkc", members, maps.flatten(2))
    counts = members.sum(dim=1)
    return sums / counts.clamp(min=1).unsqueeze(2), counts > 0


def l2_normalise(vectors: Tensor, dim: int) -> Tensor:
    """The vectors along `dim` at L2 norm 1; a vector of zeros stays one."""
    return F.normalize(vectors, dim=dim, eps=NORM_FLOOR)


def cosine_affinity(maps: Tensor) -> Tensor:
    """The cosine of every two pixels' vectors: [B, C, h, w] -> [B, h * w, h * w]."""
    vectors = l2_normalise(maps.flatten(2), dim=1)
    return vectors.transpose(1, 2) @ vectors


def pool_patches(
    maps: Tensor, pool: Callable[..., Tensor] = F.avg_pool2d, patch: int = 1, max_patches: int = MAX_PATCHES
) -> Tensor:
    """The maps pooled over patches of `patch` x `patch` pixels, or larger ones if a side had over `max_patches`."""
    side = max(patch, -(-max(maps.shape[2:]) // max_patches))
    return pool(maps, side, ceil_mode=True) if side > 1 else maps


def affinity_distance(
    student: Tensor, teacher: Tensor, pool: Callable[..., Tensor] = F.avg_pool2d, patch: int = 1
) -> Tensor:
    """Squared difference of the two maps' `cosine_affinity` of patches, mean over the batch and the pairs of patches.

    student, teacher: [B, C, h, w] with any C; the student's map is resized to the teacher's h and w.
    """
    student = resize(student, teacher.shape[2:])
    s, t = (cosine_affinity(pool_patches(maps, pool, patch)) for maps in (student, teacher))
    return F.mse_loss(s, t)
