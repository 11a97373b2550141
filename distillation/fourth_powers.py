"""The sum of the fourth powers of a resized map over its channels, without large maps of what lies between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PIECE = 2**18
"""Values of a map that a CPU works at in one go: with what comes of them they stay in a core's cache."""


def sum_of_fourth_powers(maps: Tensor, size: Sequence[int], units: Tensor) -> Tensor:
    """Of maps [B, C, h, w] in units of each sample, [B, 1, 1, 1], resized to (H, W): [B, H, W].

    In a fraction of the time and memory of resizing first, and the same up to rounding.

    Between four neighbours a, b above c, d, at the shares y down and x to the right, a resized map is the polynomial
    (1 - y) ((1 - x) a + x b) + y ((1 - x) c + x d). The sum of its fourth powers over the channels is one of degree 4
    in y and in x, whose 25 coefficients need the maps at their own size alone.
    """
    if maps.shape[2:] == torch.Size(size):
        unresized: Tensor = _AtOwnSize.apply(maps, units)
        return unresized
    maps = maps / units
    (above, down), (left, right) = (_places(*sides, maps) for sides in zip(maps.shape[2:], size, strict=True))
    for dim in (2, 3):
        if maps.shape[dim] == 1:
            maps = torch.cat((maps, maps), dim=dim)
    coefficients = _coefficients(maps)
    of_rows = torch.einsum("yi,byxij->byxj", _powers(down), coefficients[:, above])
    total: Tensor = torch.einsum("xj,byxj->byx", _powers(right), of_rows[:, :, left])
    return total


class _AtOwnSize(torch.autograd.Function):
    """Maps [B, C, h, w] and units [B, 1, 1, 1] -> [B, h, w], with the gradient 4 x^3 by the maps.

    Of one piece of the maps after another: on a CPU, writing and reading what autograd keeps takes most of the time.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, units: Tensor) -> Tensor:
        ctx.save_for_backward(maps, units)
        total = maps.new_empty(maps.shape[0], *maps.shape[2:])
        for sample, rows in _pieces(maps):
            square = (maps[sample, :, rows] / units[sample]).square_()
            torch.sum(square.square_(), dim=1, out=total[sample, rows])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        maps, units = ctx.saved_tensors
        of_maps = torch.empty_like(maps)
        for sample, rows in _pieces(maps):
            x = maps[sample, :, rows] / units[sample]
            cube = torch.mul(x.square(), x, out=of_maps[sample, :, rows])
            cube.mul_(4 * gradient[sample, None, rows]).div_(units[sample])
        return of_maps, None


def _pieces(maps: Tensor) -> Iterator[tuple[slice, slice]]:
    """Samples and rows that cover [B, C, h, w]: on a CPU in pieces that its caches hold, else all at once."""
    count, channels, height, width = maps.shape
    if maps.device.type != "cpu":
        yield slice(count), slice(height)
        return
    rows = max(1, PIECE // (channels * width))
    for sample in range(count):
        for row in range(0, height, rows):
            yield slice(sample, sample + 1), slice(row, row + rows)


def _places(length: int, resized: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Of the resized pixels along an axis: the neighbour before each, and its share of the way to the next one."""
    centres = torch.arange(resized, dtype=like.dtype, device=like.device).add(0.5).mul(length / resized).sub(0.5)
    centres = centres.clamp(0, length - 1)
    before = centres.long().clamp(max=max(0, length - 2))
    return before, centres - before


def _powers(share: Tensor) -> Tensor:
    """[N] -> [N, 5]: (1 - share)^(4 - i) share^i."""
    i = torch.arange(5, device=share.device)
    return (1 - share[:, None]) ** (4 - i) * share[:, None] ** i


def _coefficients(maps: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, h - 1, w - 1, 5, 5]: of (1 - y)^(4 - i) y^i (1 - x)^(4 - j) x^j, summed over the channels."""
    maps = maps.permute(0, 2, 3, 1).contiguous()
    a, b, c, d = maps[:, :-1, :-1], maps[:, :-1, 1:], maps[:, 1:, :-1], maps[:, 1:, 1:]
    # Of the square, whose degrees are 0 to 2, at 3 i + j.
    square = torch.stack(
        (a * a, 2 * a * b, b * b, 2 * a * c, 2 * (a * d + b * c), 2 * b * d, c * c, 2 * c * d, d * d), dim=3
    )
    products = square @ square.transpose(3, 4)
    degrees = torch.arange(9, device=maps.device)
    i, j = ((of_one[:, None] + of_one).flatten() for of_one in (degrees // 3, degrees % 3))
    sums = products.new_zeros(25, 81).index_put_((5 * i + j, torch.arange(81, device=maps.device)), maps.new_ones(()))
    coefficients: Tensor = (products.flatten(3) @ sums.T).unflatten(3, (5, 5))
    return coefficients
