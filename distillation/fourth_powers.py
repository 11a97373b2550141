"""The sum of the fourth powers of a resized map over its channels, without all channels at the larger size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from networks.contract import resize


def plain_sum_of_fourth_powers(maps: Tensor, size: Sequence[int]) -> Tensor:
    """[B, C, h, w] resized to (H, W), then the sum of x^4 over the channels: [B, H, W]."""
    return resize(maps, size).square().square().sum(dim=1)


def sum_of_fourth_powers(maps: Tensor, size: Sequence[int]) -> Tensor:
    """The same up to rounding, in a fraction of the time and memory where the size is not the maps' own.

    Between four neighbours a, b above c, d, at the shares y down and x to the right, a resized map is the polynomial
    (1 - y) ((1 - x) a + x b) + y ((1 - x) c + x d). The sum of its fourth powers over the channels is one of degree 4
    in y and in x, whose 25 coefficients need the maps at their own size alone.
    """
    if maps.shape[2:] == torch.Size(size):
        unresized: Tensor = _AtOwnSize.apply(maps)
        return unresized
    (above, down), (left, right) = (_places(*sides, maps) for sides in zip(maps.shape[2:], size, strict=True))
    for dim in (2, 3):
        if maps.shape[dim] == 1:
            maps = torch.cat((maps, maps), dim=dim)
    coefficients = _coefficients(maps)
    of_rows = torch.einsum("yi,byxij->byxj", _powers(down), coefficients[:, above])
    total: Tensor = torch.einsum("xj,byxj->byx", _powers(right), of_rows[:, :, left])
    return total


class _AtOwnSize(torch.autograd.Function):
    """[B, C, h, w] -> [B, h, w], with the gradient 4 x^3 in two passes over the maps, for which autograd takes six."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        square = maps.square()
        ctx.save_for_backward(maps, square)
        return square.square().sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        maps, square = ctx.saved_tensors
        cube: Tensor = maps * square
        return cube.mul_(4 * gradient[:, None])


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
