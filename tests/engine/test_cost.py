"""What a network costs: each measure against a value from first principles."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from datasets.frame import Frame
from datasets.labels import organ_and_tumor
from engine import cost
from engine.cost import LiveBytes
from engine.segmenter import Segmenter
from networks import build
from networks.contract import Features, SegmentationNetwork

PIXELS, FLOAT = 8 * 8, 4


class Wrapped(SegmentationNetwork):
    """Any module as a network without stages."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(classes=2)
        self.module = module

    def features(self, image: Tensor) -> Features:
        return Features((), (), self.module(image))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class TransposedWeight(nn.Module):
    """Mixes channels by a view of its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight.t()[None, :, :, None] * x


class TestPeakMemory:
    @pytest.mark.parametrize(
        ("module", "maps"),
        [
            pytest.param(nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 3, 1)), 4 + 3, id="input and output"),
            pytest.param(nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 1)), 4 + 4, id="what is left"),
            pytest.param(nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(inplace=True)), 4, id="in place"),
            pytest.param(nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten(), nn.Unflatten(1, (4, 8, 8))), 4, id="views"),
            pytest.param(nn.Sequential(nn.Conv2d(1, 4, 1), Residual()), 4 + 4 + 4, id="residual"),
            pytest.param(TransposedWeight(), 2, id="view of a weight"),
        ],
    )
    def test_is_what_is_alive_at_once(self, module: nn.Module, maps: int) -> None:
        network = Wrapped(module)
        assert cost.peak_activation_bytes(network, size=8) == maps * PIXELS * FLOAT
        assert cost.peak_activation_bytes(network, size=8, batch=3) == 3 * maps * PIXELS * FLOAT

    def test_does_not_forget_what_is_kept(self) -> None:
        with LiveBytes() as live:
            kept = [torch.zeros(10) for _ in range(3)]
            assert live.alive == live.peak == 3 * 10 * FLOAT
            kept.clear()
            assert live.alive == 0
            torch.zeros(5)
        assert live.peak == 3 * 10 * FLOAT

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
    def test_on_cuda_is_at_least_what_is_alive(self) -> None:
        network = build("resnet_18", classes=2)
        live = cost.peak_activation_bytes(network, size=256)
        assert live <= cost.peak_activation_bytes(network.cuda(), size=256) < 4 * live


def test_multiply_accumulates_of_a_convolution() -> None:
    network = Wrapped(nn.Conv2d(1, 5, kernel_size=3, padding=1))
    assert cost.parameters_and_macs(network, size=8) == (5 * 9 + 5, 5 * 9 * PIXELS)


@pytest.mark.parametrize(("frame", "side"), [(Frame(64, 48), 48), (Frame(64, 0), 64), (Frame(0, 0), 512)])
def test_a_network_is_counted_at_the_size_of_its_frame(frame: Frame, side: int) -> None:
    network = Wrapped(nn.Conv2d(1, 50, kernel_size=3, padding=1))
    segmenter = Segmenter(network, "wrapped", "kits", organ_and_tumor()["tumor"], frame, None)
    gmacs = round(50 * 9 * side**2 / 1e9, 3)
    assert cost.network_cost(segmenter) == {"parameters": 50 * 9 + 50, "gmacs": gmacs, "gmacs_at": side}


def test_an_evaluation_s_speed_counts_each_case_once() -> None:
    entries = [{"case": case, "slices": 10, "seconds": 2.0} for case in ("1", "1", "2")]
    assert cost.evaluation_speed(entries) == 5


def test_speed_is_that_of_the_median_pass_without_the_first_two(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = iter([100.0, 50.0, 2.0, 1.0, 30.0])
    clock = 0.0

    class Slow(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal clock
            clock += next(passes)
            return super().forward(x)

    monkeypatch.setattr(cost, "perf_counter", lambda: clock)
    assert cost.forward_speed(Wrapped(Slow(1, 2, kernel_size=1)), size=8, batch=4, repeats=3) == 4 / 2


@pytest.mark.parametrize(
    "measure",
    [
        partial(cost.parameters_and_macs, size=32),
        partial(cost.peak_activation_bytes, size=32),
        partial(cost.forward_speed, size=32),
    ],
)
def test_measuring_leaves_the_network_as_it_was(measure: Callable[[SegmentationNetwork], object]) -> None:
    network = build("resnet_18", classes=2).train()
    before = network.encoder.bn1.running_mean.clone()
    measure(network)
    assert network.training and torch.equal(network.encoder.bn1.running_mean, before)
