"""nnU-Net's resampling along one axis, as a matrix: exact, and fast on any device.

It resizes with skimage, whose splines are linear in the values and separable in the axes. So what one axis does is
found once, on the CPU, by resizing the unit matrix.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

SIZES = 256
"""Pairs of sizes that are kept; slices of a data set have few."""


@lru_cache(SIZES)
def spline_weights(old: int, new: int, order: int) -> Tensor:
    """float64 [new, old]: what each new pixel takes from each old one; the border's pixel goes on outside."""
    unit = np.eye(old)
    return torch.from_numpy(ndimage.zoom(unit, (new / old, 1), order=order, mode="nearest", grid_mode=True))


@lru_cache(SIZES)
def map_weights(count: int, image: int, start: int, tile: int, cells: int) -> Tensor:
    """float64 [count, cells]: a map's values at the middles of `count` equal parts of the image, by linear steps.

    The map has `cells` equal cells over a tile, on which the image begins at pixel `start`, which is negative where the
    tile is further inside. Of parts whose middle is outside the tile the weights are 0.
    """
    middles = (np.arange(count) + 0.5) * image / count + start
    places = np.clip(middles * cells / tile - 0.5, 0, cells - 1)
    low = np.minimum(places.astype(int), cells - 1)
    high = np.minimum(low + 1, cells - 1)
    weights = np.zeros((count, cells))
    np.add.at(weights, (np.arange(count), low), 1 - (places - low))
    np.add.at(weights, (np.arange(count), high), places - low)
    weights[(middles < 0) | (middles >= tile)] = 0
    return torch.from_numpy(weights)


@lru_cache(SIZES)
def importance(tile: int) -> Tensor:
    """float64 [tile]: how much a tile's answers count along one axis, where tiles overlap; a bell, 1 in the middle."""
    middle = np.zeros(tile)
    middle[tile // 2] = 1
    bell = ndimage.gaussian_filter1d(middle, tile / 8, mode="constant")
    return torch.from_numpy(np.maximum(bell, bell[bell > 0].min()) / bell.max())


def tile_starts(length: int, tile: int) -> tuple[int, ...]:
    """Where tiles begin along an axis: evenly spaced, and overlapping by half of a tile or more."""
    steps = 1 + math.ceil((length - tile) / (tile / 2))
    return tuple(round(i * (length - tile) / max(1, steps - 1)) for i in range(steps))


def apply(rows: Tensor, columns: Tensor, maps: Tensor) -> Tensor:
    """Resize [..., h, w] by the weights of its rows [H, h] and columns [W, w]; float32."""
    rows, columns = (weights.to(maps.device, torch.float32, non_blocking=True) for weights in (rows, columns))
    return rows @ maps.float() @ columns.T
