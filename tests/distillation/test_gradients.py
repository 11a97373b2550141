"""How strongly each term pulls at a network's parameters."""

from __future__ import annotations

import pytest
import torch

from distillation.gradients import gradient_norms, stage_groups
from tests.small import TinyNetwork


def test_gradient_norms_are_those_of_hand_made_gradients() -> None:
    a, b = torch.nn.Parameter(torch.tensor([1.0, 2.0])), torch.nn.Parameter(torch.tensor(3.0))
    terms = {"square": a.square().sum(), "product": 2 * a[0] * b, "constant": torch.ones(())}
    norms = gradient_norms(terms, {"a": [a], "b": [b], "both": [a, b]})
    assert float(norms["square"]["a"]) == pytest.approx(20**0.5)
    assert float(norms["square"]["b"]) == 0
    assert float(norms["product"]["both"]) == pytest.approx((6**2 + 2**2) ** 0.5)
    assert all(float(norm) == 0 for norm in norms["constant"].values())
    assert a.grad is None and b.grad is None


@pytest.mark.parametrize("factor", [1e-9, 1e-3, 50.0])
def test_half_precision_hides_no_gradient(factor: float) -> None:
    draw = torch.Generator().manual_seed(0)
    image, weight = torch.rand(2, 3, 8, 8, generator=draw), torch.nn.Parameter(torch.rand(4, 3, 1, 1, generator=draw))

    def norm() -> float:
        term = factor * torch.nn.functional.conv2d(image, weight).float().square().mean()
        return float(gradient_norms({"term": term}, {"all": [weight]})["term"]["all"])

    exact = norm()
    with torch.autocast("cpu", dtype=torch.float16):
        assert norm() == pytest.approx(exact, rel=0.02)


def test_stages_hold_every_trained_parameter_once() -> None:
    network = TinyNetwork((3, 4, 5, 6, 7), (6, 5, 4, 3), first_stride=2, classes=2)
    groups = stage_groups(network)
    assert list(groups) == [*(f"down.{i}" for i in range(5)), *(f"up.{i}" for i in range(4)), "head"]
    assert sum(map(len, groups.values())) == len(list(network.parameters()))
