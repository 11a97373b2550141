"""In which precision a teacher answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.slices.slice_folder import SliceFolder
from distillation import parse_methods
from distillation.distiller import in_float32
from engine.options import DistillationOptions
from engine.training.timed_step import TimedStep
from networks.contract import Features
from tests.engine.training.test_run import new_teacher, options
from tests.small import write_bare_archive


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> SliceFolder:
    return SliceFolder.open(write_bare_archive(tmp_path_factory.mktemp("slices")), "kits", "tumor")


@pytest.mark.parametrize(("amp", "of_teacher"), [("auto", torch.bfloat16), ("off", torch.float32)])
def test_a_teacher_answers_in_bf16_that_its_student_is_slower_in(
    amp: str, of_teacher: torch.dtype, slices: SliceFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.device.has_fast_bf16", lambda: True)
    found: list[torch.dtype] = []

    def noted(features: Features, *others: Any) -> Features:
        found.append(features.encoder[4].dtype)
        return in_float32(features, *others)

    monkeypatch.setattr("distillation.distiller.in_float32", noted)
    distillation = DistillationOptions(Path("teacher.ckpt"), methods=parse_methods(["kd"]))
    run = replace(options(slices, tmp_path, "malunet", amp=amp), distillation=distillation)
    TimedStep(run, new_teacher(slices))()
    assert found == [of_teacher, torch.float32]


@pytest.mark.parametrize("model", ["resnet_18", "malunet"])
def test_what_comes_before_the_first_step_is_in_float32(
    model: str, slices: SliceFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.device.has_fast_bf16", lambda: True)
    distillation = DistillationOptions(Path("teacher.ckpt"), methods=parse_methods(["ktaad"]))
    run = replace(options(slices, tmp_path, model, amp="auto"), distillation=distillation)
    TimedStep(run, new_teacher(slices))()
