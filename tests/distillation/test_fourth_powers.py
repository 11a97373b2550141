"""The sum of fourth powers, against its plain formula."""

from __future__ import annotations

import pytest
import torch

from distillation.fourth_powers import plain_sum_of_fourth_powers, sum_of_fourth_powers
from networks.contract import resize


@pytest.mark.parametrize(
    ("small", "large"),
    [((6, 6), (48, 48)), ((7, 5), (9, 3)), ((1, 4), (5, 8)), ((4, 1), (4, 9)), ((6, 6), (4, 11)), ((5, 7), (5, 7))],
)
def test_powers_of_resized_maps_are_those_of_maps_resized_first(small: tuple[int, int], large: tuple[int, int]) -> None:
    maps = torch.randn(2, 6, *small, dtype=torch.double, generator=torch.Generator().manual_seed(0)).requires_grad_()
    plain, fast = plain_sum_of_fourth_powers(maps, large), sum_of_fourth_powers(maps, large)
    assert torch.allclose(plain, resize(maps, large).pow(4).sum(dim=1), rtol=1e-12)
    assert torch.allclose(fast, plain, rtol=1e-10)
    weights = torch.linspace(-1, 1, plain.numel(), dtype=torch.double).view_as(plain)
    gradients = [torch.autograd.grad((weights * power).sum(), maps)[0] for power in (plain, fast)]
    assert torch.allclose(*gradients, rtol=1e-9)
