"""Two launches give the same bytes on a CPU, whatever loads the slices; on a GPU those of `--deterministic` do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from datasets.loader import TrainingLoader
from datasets.slices.slice_folder import SliceFolder
from engine.device import be_deterministic, says_what_is_random
from engine.training.schedule import Schedule
from tests.small import equal_states, write_bare_archive
from tests.training import small_trainer
from utils.errors import UserError


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> SliceFolder:
    return SliceFolder.open(write_bare_archive(tmp_path_factory.mktemp("slices")), "kits", "tumor")


@pytest.mark.parametrize("kd", [None, "cirkd"])
def test_launches_give_equal_bytes_with_any_number_of_loaders(
    slices: SliceFolder, tmp_path: Path, kd: str | None
) -> None:
    """best.ckpt as a whole; of last.ckpt, which also has times, weights, optimisers and random numbers."""
    for name, workers in (("a", 0), ("b", 0), ("c", 1), ("d", 2)):
        trainer = small_trainer(slices, tmp_path / name, kd, Schedule(8, 4, 1e-2))
        trainer.loader = TrainingLoader(trainer.loader.dataset, 3, workers)
        trainer.fit()
    first, *others = ((tmp_path / name / "best.ckpt").read_bytes() for name in "abcd")
    assert all(other == first for other in others)
    states = [torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in "abcd"]
    for state in states[1:]:
        assert equal_states(state["weights"], states[0]["weights"])
        assert equal_states(state["task_state"], states[0]["task_state"])
        assert torch.equal(state["random"]["cpu"], states[0]["random"]["cpu"])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What PyTorch is asked for, without any effect on other tests."""
    calls: list[bool] = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", calls.append)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    return calls


def test_a_gpu_is_made_deterministic(asked: list[bool]) -> None:
    be_deterministic(torch.device("cuda"))
    assert asked == [True] and not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_cpu_is_left_alone(asked: list[bool]) -> None:
    be_deterministic(torch.device("cpu"))
    assert asked == [] and "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_an_operation_without_a_deterministic_form_is_one_line() -> None:
    text = (
        "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you set "
        "'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for this operation"
    )
    message = "^--deterministic: adaptive_avg_pool2d_backward_cuda does not have a deterministic impl.*; leave it out"
    with pytest.raises(UserError, match=message), says_what_is_random():
        raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="another"), says_what_is_random():
        raise RuntimeError("another")
