"""Mixed precision: what `auto` means here, and the one warning about it."""

from __future__ import annotations

import pytest
import torch

from engine import device
from engine.device import Precision, has_fast_bf16
from networks import build
from networks.contract import SegmentationNetwork
from utils.errors import UserError

CPU = torch.device("cpu")
PROBES = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")


def pretend(patch: pytest.MonkeyPatch, machine: str, *answers: bool) -> None:
    """A processor whose probes answer so, before any warning."""
    for probe, answer in zip(PROBES, answers, strict=True):
        patch.setattr(torch.cpu, probe, lambda answer=answer: answer)
    patch.setattr(device.platform, "machine", lambda: machine)
    device._warn_of_slow_bf16.cache_clear()


@pytest.mark.parametrize("answers", [(False, False), (True, False), (False, True)])
def test_auto_asks_the_cpu_for_instructions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answers: tuple[bool, bool]
) -> None:
    pretend(monkeypatch, "x86_64", *answers)
    assert has_fast_bf16() == any(answers)
    assert Precision("auto", CPU).name == ("bf16" if any(answers) else "off")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("name", "auto"), [("malunet", "off"), ("unet_mbv2", "off"), ("resnet_18", "bf16")])
def test_auto_knows_what_trains_faster_without_bf16(name: str, auto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "x86_64", True, True)
    network = build(name, 2)
    assert Precision("auto", CPU, network).name == auto
    assert Precision("bf16", CPU, network).name == "bf16"


def test_a_version_without_the_probes_has_no_fast_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    for probe in PROBES:
        monkeypatch.delattr(torch.cpu, probe)
    assert not has_fast_bf16()


@pytest.mark.parametrize(
    ("machine", "fast", "notes"), [("x86_64", False, 1), ("x86_64", True, 0), ("aarch64", False, 0)]
)
def test_emulated_bf16_is_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], machine: str, fast: bool, notes: int
) -> None:
    pretend(monkeypatch, machine, fast, fast)
    assert [Precision("bf16", CPU).name for _ in range(2)] == ["bf16", "bf16"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == notes and all("3 to 7 times slower than --amp off" in line for line in lines)


def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(UserError, match="--amp fp16 needs a CUDA device"):
        Precision("fp16", CPU)


@pytest.mark.parametrize("block", [0, 4])
@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_only_3d_networks_in_bf16_keep_the_plain_layout_on_a_cpu(
    amp: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "has_fast_bf16", lambda: True)
    network = SegmentationNetwork(2)
    network.block = block
    plain = Precision(amp, CPU).layout(network) is torch.contiguous_format
    assert plain == (amp == "bf16" and block > 0)
