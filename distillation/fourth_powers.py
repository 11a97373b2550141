"""The sum of the fourth powers of a resized map over its channels, without all channels at the larger size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from networks.contract import resize


def plain_sum_of_fourth_powers(maps: Tensor, size: Sequence[int]) -> Tensor:
    """[B, C, h, w] resized to (H, W), then the sum of x^4 over the channels: [B, H, W]."""
    return resize(maps, size).square().square().sum(dim=1)


def sum_of_fourth_powers(maps: Tensor, size: Sequence[int]) -> Tensor:
    """The same up to rounding, in a fraction of the time and memory where there are more rows than before.

    Columns are resized first. A row of the result is v a + w b of two neighbouring rows a and b, and the sum of
    (v a + w b)^4 over the channels follows from the sums of a^4, a^3 b, a^2 b^2, a b^3 and b^4.
    """
    height, rows = maps.shape[2], size[0]
    if rows == height:
        return plain_sum_of_fourth_powers(maps, size)
    if height == 1:
        return plain_sum_of_fourth_powers(maps, (1, size[1])).expand(-1, rows, -1)
    maps = resize(maps, (height, size[1]))
    centres = torch.arange(rows, dtype=maps.dtype, device=maps.device).add(0.5).mul(height / rows).sub(0.5)
    centres = centres.clamp(0, height - 1)
    upper = centres.long().clamp(max=height - 2)
    w = (centres - upper)[:, None]
    v = 1 - w
    square = maps.square()
    a4 = square.square().sum(dim=1)
    product = maps[:, :, :-1] * maps[:, :, 1:]
    a3b = (square[:, :, :-1] * product).sum(dim=1)[:, upper]
    a2b2 = product.square().sum(dim=1)[:, upper]
    ab3 = (product * square[:, :, 1:]).sum(dim=1)[:, upper]
    total: Tensor = v**4 * a4[:, upper] + w**4 * a4[:, upper + 1]
    return total + 4 * v**3 * w * a3b + 6 * (v * w) ** 2 * a2b2 + 4 * v * w**3 * ab3
