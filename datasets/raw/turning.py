"""Volumes whose axes lie in memory in another order than [Z, Y, X]: copying, slices and counting, by cache-sized parts.

A KiTS case is stored with z fastest, so that one slice has a voxel in every cache line of the file: taken alone it
costs as much as 32 do together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Slices turned at once: two cache lines of int16 along z.
BLOCK = 64


def copy_turned(target: NDArray[Any], source: NDArray[Any], *, sparse: bool = False) -> None:
    """target[:] = source, both 3D, in a third of the time where their axes lie in memory in another order.

    Turned one plane at a time, of the two axes along which one of them is contiguous, it stays in a processor's cache.
    sparse: the target is zero already, and so is most of the source, of which planes without another value are skipped.
    """
    along, across = _fastest(target), _fastest(source)
    if along == across:
        target[:] = source
        return
    planes = (np.moveaxis(array, 3 - along - across, 0) for array in (target, source))
    for to, plane in zip(*planes, strict=True):
        if not sparse or plane.any():
            to[:] = plane


def pick_slices(image: NDArray[Any], wanted: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Those slices [Y, X] of an image [Z, Y, X], each contiguous; of one with z fastest some are turned together."""
    if _fastest(image) != 0:
        yield from (np.ascontiguousarray(image[index]) for index in wanted)
        return
    for start in range(0, len(wanted), BLOCK):
        indices = np.array(wanted[start : start + BLOCK])
        block = np.empty((len(indices), *image.shape[1:]), image.dtype)
        for row in range(image.shape[1]):
            block[:, row] = image[:, row].T[:, indices].T
        yield from block


def planes_in_memory(image: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The 2D parts of a 3D array, each contiguous and all together in its own order in memory."""
    order = np.argsort([-abs(stride) for stride in image.strides], kind="stable")
    forwards = image[tuple(slice(None, None, 1 if stride > 0 else -1) for stride in image.strides)]
    yield from (np.ascontiguousarray(plane) for plane in forwards.transpose(order))


def _fastest(array: NDArray[Any]) -> int:
    return int(np.argmin(np.abs(array.strides)))
