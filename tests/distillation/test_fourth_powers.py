"""The sum of fourth powers, against its plain formula."""

from __future__ import annotations

import pytest
import torch

from distillation.fourth_powers import PIECE, sum_of_fourth_powers
from networks.contract import resize


@pytest.mark.parametrize(
    ("small", "large"),
    [((6, 6), (48, 48)), ((7, 5), (9, 3)), ((1, 4), (5, 8)), ((4, 1), (4, 9)), ((6, 6), (4, 11)), ((5, 7), (5, 7))],
)
def test_powers_of_resized_maps_are_those_of_maps_resized_first(small: tuple[int, int], large: tuple[int, int]) -> None:
    maps = torch.randn(2, 6, *small, dtype=torch.double, generator=torch.Generator().manual_seed(0)).requires_grad_()
    units = torch.tensor([2.0, 0.5], dtype=torch.double).view(2, 1, 1, 1)
    plain, fast = resize(maps / units, large).pow(4).sum(dim=1), sum_of_fourth_powers(maps, large, units)
    assert torch.allclose(fast, plain, rtol=1e-10)
    weights = torch.linspace(-1, 1, plain.numel(), dtype=torch.double).view_as(plain)
    gradients = [torch.autograd.grad((weights * power).sum(), maps)[0] for power in (plain, fast)]
    assert torch.allclose(*gradients, rtol=1e-9)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_maps_of_many_pieces_have_the_powers_and_the_gradient_of_one(layout: torch.memory_format) -> None:
    maps = torch.randn(2, 16, 200, 180, generator=torch.Generator().manual_seed(0)).to(memory_format=layout)
    assert maps[0].numel() > 2 * PIECE
    maps, units = maps.requires_grad_(), torch.tensor([3.0, 0.7]).view(2, 1, 1, 1)
    plain, fast = (maps / units).pow(4).sum(dim=1), sum_of_fourth_powers(maps, maps.shape[2:], units)
    assert torch.allclose(fast, plain, rtol=1e-5)
    weights = torch.linspace(-1, 1, plain.numel()).view_as(plain)
    gradients = [torch.autograd.grad((weights * power).sum(), maps)[0] for power in (plain, fast)]
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-6)
