"""Checks of a GPU, on a CPU whose steps are judged as late as a GPU's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.device import Precision
from engine.gpu_check import correctness
from engine.gpu_check.setting import Setting
from engine.training.timed_step import TimedStep
from phantoms.noise import write_noise
from tests.training import CPU, judge_behind


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    """A training in fp16 has its scaler, which a CPU otherwise refuses."""
    of_precision = Precision.__init__

    def start(self: Precision, name: str, device: torch.device, *others: Any) -> None:
        of_precision(self, "off" if name == "fp16" else name, device, *others)
        self.name = name
        self.scaler = torch.amp.GradScaler("cpu", init_scale=4.0, enabled=name == "fp16")

    monkeypatch.setattr(Precision, "__init__", start)
    monkeypatch.setattr(Setting, "amps", ("fp16",))
    judge_behind(monkeypatch, 1)
    return Setting(CPU, True, write_noise(tmp_path / "slices", 32, 8, 2), tmp_path / "runs")


def test_an_overflow_is_seen(setting: Setting) -> None:
    (row,) = correctness.scaler(setting)
    assert row.outcome == "passed", row


def test_a_step_without_an_overflow_is_not_one(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correctness, "HUGE_SCALE", 8.0)
    (row,) = correctness.scaler(setting)
    assert row.outcome == "failed" and "weights changed" in row.found


@pytest.mark.parametrize(
    ("image", "gradient", "scale", "outcome", "found"),
    [
        (0.5, 1.0, 4.0, "passed", "finite, overflows before it: 0$"),
        (0.5, 1.0, 2.0**30, "passed", "finite, overflows before it: [1-9]"),
        (torch.nan, 1.0, 4.0, "failed", "loss not finite"),
        (0.5, torch.inf, 4.0, "failed", "gradient not finite"),
    ],
)
def test_a_method_whose_step_is_never_taken_fails(
    setting: Setting,
    monkeypatch: pytest.MonkeyPatch,
    image: float,
    gradient: float,
    scale: float,
    outcome: str,
    found: str,
) -> None:
    def first(self: TimedStep, *run: Any) -> None:
        of_step(self, *run)
        self.batch.image[0, 0, 3, 3] = image
        self.trainer.precision.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        next(self.trainer.task.network.parameters()).register_hook(lambda found: found * gradient)

    of_step = TimedStep.__init__
    monkeypatch.setattr(TimedStep, "__init__", first)
    monkeypatch.setattr(correctness, "METHODS", {"skd": ""})
    (row,) = correctness.methods(setting)
    assert row.outcome == outcome and re.match(found, row.found), row
