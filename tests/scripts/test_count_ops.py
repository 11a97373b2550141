"""What a network costs: each measure against a value from first principles; then the table of them."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from networks import build, count
from networks.contract import Features, SegmentationNetwork
from networks.memory import LiveBytes
from tests.paths import SCRIPTS

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
        assert count.peak_activation_bytes(network, size=8) == maps * PIXELS * FLOAT
        assert count.peak_activation_bytes(network, size=8, batch=3) == 3 * maps * PIXELS * FLOAT

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
        live = count.peak_activation_bytes(network, size=256)
        assert live <= count.peak_activation_bytes(network.cuda(), size=256) < 4 * live


def test_multiply_accumulates_of_a_convolution() -> None:
    network = Wrapped(nn.Conv2d(1, 5, kernel_size=3, padding=1))
    assert count.count(network, size=8) == (5 * 9 + 5, 5 * 9 * PIXELS)


def test_speed_is_that_of_the_median_pass_without_the_first_two(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = iter([100.0, 50.0, 2.0, 1.0, 30.0])
    clock = 0.0

    class Slow(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal clock
            clock += next(passes)
            return super().forward(x)

    monkeypatch.setattr(count, "perf_counter", lambda: clock)
    assert count.slices_per_second(Wrapped(Slow(1, 2, kernel_size=1)), size=8, batch=4, repeats=3) == 4 / 2


def test_stages_have_names_channels_and_strides() -> None:
    stages = count.stages(build("smp/deeplabv3plus/resnet18", classes=2))
    assert [stage.name for stage in stages] == ["e1", "e2", "e3", "e4", "e5", "d5", "d4", "d3", "d2"]
    assert [stage.channels for stage in stages] == [64, 64, 128, 256, 512, 256, 256, 256, 256]
    assert [stage.stride for stage in stages] == [2, 4, 8, 16, 16, 16, 4, 4, 4]


@pytest.mark.parametrize(
    "measure",
    [
        partial(count.count, size=32),
        partial(count.peak_activation_bytes, size=32),
        partial(count.slices_per_second, size=32),
        count.stages,
    ],
)
def test_measuring_leaves_the_network_as_it_was(measure: Callable[[SegmentationNetwork], object]) -> None:
    network = build("resnet_18", classes=2).train()
    before = network.encoder.bn1.running_mean.clone()
    measure(network)
    assert network.training and torch.equal(network.encoder.bn1.running_mean, before)


class TestScript:
    @pytest.fixture
    def run(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
        def run(*arguments: str) -> str:
            monkeypatch.syspath_prepend(str(SCRIPTS))
            monkeypatch.setattr(sys, "argv", ["count_ops.py", *arguments])
            runpy.run_path(str(SCRIPTS / "count_ops.py"), run_name="__main__")
            return capsys.readouterr().out

        return run

    def test_prints_an_aligned_row_for_each_network(self, run: Callable[..., str]) -> None:
        models = ["--models", "ResNet-18", "smp/fpn/resnet-18"]
        header, _, *rows = run(*models, "--size", "384", "--repeats", "1", "--device", "cpu").splitlines()[:4]
        assert len({len(line) for line in (header, *rows)}) == 1
        name, parameters, gmacs, *_, e5, d5, d4, d3, d2 = rows[0].split()
        assert (name, parameters, gmacs) == ("resnet_18", "11.17", "5.10")
        assert [e5, d5, d4, d3, d2] == ["512/32", "256/16", "128/8", "64/4", "64/2"]
        assert rows[1].startswith("smp/fpn/resnet18 ")

    def test_prints_markdown(self, run: Callable[..., str]) -> None:
        header, rule, row, *_ = run(
            "--models", "resnet_18", "--size", "32", "--repeats", "1", "--markdown"
        ).splitlines()
        assert header.startswith("| network | parameters (M) | GMACs | peak memory (MiB) |")
        assert row.startswith("| resnet_18 | 11.17 |")
        assert header.count("|") == rule.count("|") == row.count("|")

    def test_unknown_network_is_one_line(self, run: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="2"):
            run("--models", "resnet_18", "resnet_19")
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: there is no network 'resnet_19'")
