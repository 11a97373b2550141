"""A curve through every cell of a box, from neighbour to neighbour, so that cells near on it are near in the box.

D. Hilbert: Über die stetige Abbildung einer Linie auf ein Flächenstück, Mathematische Annalen 38, 1891. Hilbert's own
curve needs cubes whose sides are powers of two. For any sides the idea here is that of J. Červený's gilbert (2018,
github.com/jakubcerveny/gilbert): a box that is to be crossed along one side is cut into smaller ones, each of which is
crossed along the side that leads to the next.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Vector = NDArray[np.int64]


@cache
def hilbert_order(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Int64 [cells]: the flat indices of an array of this shape, of two or three sides, in the order of the curve.

    A slice and a block of one slice have the same order. The curve runs along the longest side, the last of equally
    long ones. Its steps lead to neighbours; with odd sides some are diagonal, never longer.
    """
    sides = (1, *shape)[-3:]
    longest_first = sorted(range(3), key=lambda axis: (-sides[axis], -axis))
    cells = np.empty((np.prod(sides), 3), np.int64)
    cells[:, longest_first] = walk(*(sides[axis] for axis in longest_first))
    return torch.from_numpy(np.ravel_multi_index(tuple(cells.T), sides)).to(device)


@cache
def walk(length: int, width: int, depth: int) -> Vector:
    """The cells [n, 3] of a box, from (0, 0, 0) to (length - 1, 0, 0) or near it."""
    sides = (length, width, depth)
    if min(sides) == 0 or sorted(sides)[1] == 1:
        line = np.zeros((np.prod(sides), 3), np.int64)
        line[:, sides.index(max(sides))] = np.arange(len(line))
        return line
    parts = cut(*np.diag(sides))
    return np.concatenate([part.start + walk(*part.sides) @ part.directions for part in parts])


class Box(NamedTuple):
    """Cells from `start` on along three axes, each a vector with one entry at most: so many cells, in its direction.

    The curve is to cross it along the first of them.
    """

    start: Vector
    along: Vector
    across: Vector
    aside: Vector

    @property
    def directions(self) -> Vector:
        return np.sign(np.stack(self[1:]))

    @property
    def sides(self) -> list[int]:
        sides: list[int] = np.abs(np.stack(self[1:])).sum(axis=1).tolist()
        return sides


def cut(along: Vector, across: Vector, aside: Vector) -> list[Box]:
    """Boxes that are a box, in the order in which the curve crosses them, each from next to where the one before ends.

    The axes are those of the whole, which begins at 0.
    """
    length, width, depth = (int(axis.sum()) for axis in (along, across, aside))
    half, half_across, half_aside = (near_half(axis) for axis in (along, across, aside))
    start = np.zeros(3, np.int64)
    if 2 * length > 3 * max(width, depth):
        return [Box(start, half, across, aside), Box(half, along - half, across, aside)]
    if 3 * width > 4 * depth:
        return detour(along, across, aside)
    if 3 * depth > 4 * width:
        return detour(along, aside, across)
    # Into the depth in the far half of `across`, the whole length in the near half, and back out.
    end, near_end, far_end = last(along), last(half_across), last(aside)
    return [
        Box(start, half_across, half_aside, half),
        Box(half_across, aside, half, across - half_across),
        Box(near_end + far_end, along, -half_across, half_aside - aside),
        Box(end + half_across + far_end, -aside, half - along, across - half_across),
        Box(end + near_end, -half_across, half_aside, half - along),
    ]


def detour(along: Vector, across: Vector, aside: Vector) -> list[Box]:
    """Up along the near half of `across`, the whole length in its far half, and down again."""
    half, half_across = near_half(along), near_half(across)
    return [
        Box(np.zeros(3, np.int64), half_across, aside, half),
        Box(half_across, along, across - half_across, aside),
        Box(last(along) + last(half_across), -half_across, aside, half - along),
    ]


def near_half(axis: Vector) -> Vector:
    """Half of an axis; an even number of cells where there are more than two."""
    cells = int(axis.sum())
    half = cells // 2
    return np.sign(axis) * (half + 1 if half % 2 and cells > 2 else half)


def last(axis: Vector) -> Vector:
    """From the first cell along an axis to the last."""
    return axis - np.sign(axis)
