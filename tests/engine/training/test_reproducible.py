"""Two launches give the same bytes on a CPU, whatever loads the slices; on a GPU those of `--deterministic` do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from datasets.loader import TrainingLoader
from datasets.slices.slice_folder import SliceFolder
from engine.device import deterministic
from engine.training.run import train
from engine.training.schedule import Schedule
from networks import NETWORKS
from tests.small import SmallNetwork, equal_states, write_bare_archive
from tests.training import small_trainer, spy_on
from utils.batch import Batch
from utils.errors import UserError


def tiny(classes: int, pretrained: bool) -> SmallNetwork:
    return SmallNetwork(classes)


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


@pytest.mark.parametrize("kd", [None, "cirkd"])
def test_a_training_is_deterministic_where_that_was_asked_for_and_no_longer(
    slices: SliceFolder, tmp_path: Path, kd: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every operation of it has such a form, or the training would end; a CPU gives the same numbers without."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setitem(NETWORKS, "tiny", f"{__name__}:tiny")
    for asked in (True, False):
        seen: list[tuple[bool, bool, str | None]] = []

        def look(batch: Batch, seen: list[tuple[bool, bool, str | None]] = seen) -> None:
            state = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
            seen.append((*state, os.environ.get("CUBLAS_WORKSPACE_CONFIG")))

        trainer = small_trainer(slices, tmp_path / str(asked), kd, Schedule(4, 2, 1e-2))
        trainer.deterministic = asked
        spy_on(trainer, look)
        train(trainer)
        assert seen == [(asked, not asked, ":4096:8")] * 4
        assert not torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.benchmark
    one, other = (torch.load(tmp_path / f"{asked}/best.ckpt", weights_only=True) for asked in (True, False))
    assert equal_states(one["weights"], other["weights"])


def test_an_operation_without_a_deterministic_form_is_one_line() -> None:
    text = (
        "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you set "
        "'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for this operation"
    )
    message = "^--deterministic: adaptive_avg_pool2d_backward_cuda does not have a deterministic impl.*; leave it out"
    with pytest.raises(UserError, match=message), deterministic():
        raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="another"), deterministic():
        raise RuntimeError("another")
    assert not torch.are_deterministic_algorithms_enabled()
