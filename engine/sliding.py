"""Volumetric networks along a volume: blocks of slices that overlap by half, and the mean where they do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def block_starts(count: int, block: int) -> list[int]:
    """The first slices of blocks that cover `count` slices, each half a block after the one before.

    The last one ends with the volume. Where the volume has fewer slices than a block, it lies in the middle of one.
    """
    if count <= block:
        return [-((block - count) // 2)]
    return [*range(0, count - block, max(1, block // 2)), count - block]


def slices_of_block(start: int, block: int, count: int) -> NDArray[np.int64]:
    """The indices of a block's slices in a volume of `count`; beyond its ends the outermost slice again."""
    return np.arange(start, start + block).clip(0, count - 1)


def overlapping_blocks(count: int, block: int, slices: int) -> Iterator[tuple[list[int], NDArray[np.int64]]]:
    """First slices [b], and indices of all slices [b, D], of as many blocks at once as hold that many slices."""
    # Of a single small block PyTorch computes 3D convolutions on a CPU in a way that takes five times as long.
    starts, at_once = block_starts(count, block), max(2, slices // block)
    for i in range(0, len(starts), at_once):
        some = starts[i : i + at_once]
        yield some, np.stack([slices_of_block(start, block, count) for start in some])


def mean_of_overlaps(blocks: Iterable[tuple[Sequence[int], Tensor]], count: int) -> Iterator[tuple[slice, Tensor]]:
    """(slices, [n, C, h, w]), in order, of (first slices, [b, C, D, h, w]) in order: each slice's mean over its blocks.

    count: slices of the volume; what a block has beyond them is left out. No more is kept than the overlap.
    """
    done = 0
    sums: Tensor | None = None
    held = torch.empty(0)
    for start, maps in (pair for starts, values in blocks for pair in zip(starts, values, strict=True)):
        first = max(0, start)
        inside = maps.transpose(0, 1)[first - start : count - start]
        weights = inside.new_ones(len(inside), 1, 1, 1)
        if sums is not None:
            # No later block begins before this one.
            final = first - done
            yield slice(done, first), sums[:final] / held[:final]
            inside = inside.clone()
            inside[: len(sums) - final] += sums[final:]
            weights[: len(sums) - final] += held[final:]
        done, sums, held = first, inside, weights
    if sums is not None:
        yield slice(done, count), sums / held
