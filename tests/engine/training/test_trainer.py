"""The training loop: what it learns, what it keeps, and that an interruption changes nothing."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from datasets.loader import SliceDataset, TrainingLoader
from datasets.slices.slice_folder import SliceFolder
from distillation.task import SupervisedTask
from engine.training.schedule import Schedule
from engine.training.trainer import make_optimizers
from engine.training.validation import Validation, ValidationScores
from tests.small import SmallNetwork, equal_states, write_bare_archive
from tests.training import small_trainer, spy_on, stop_after
from utils.errors import UserError


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> SliceFolder:
    return SliceFolder.open(write_bare_archive(tmp_path_factory.mktemp("slices")), "kits", "tumor")


def test_training_learns_and_keeps_the_best(slices: SliceFolder, tmp_path: Path) -> None:
    trainer = small_trainer(slices, tmp_path, schedule=Schedule(100, 4, 1e-2))
    progress = trainer.fit()
    losses = [entry["train"]["loss"] for entry in progress.history]
    assert losses[-1] < 0.5 * losses[0]
    assert progress.best > 0.6
    best = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert best["metrics"]["dice"] == progress.best == max(entry["score"] for entry in progress.history)
    assert best["step"] == progress.best_step
    named = [file.name for file in tmp_path.glob("checkpoint_*")]
    assert named == [f"checkpoint_kits_tumor_tiny_{progress.best_step // 4}.ckpt"]
    assert len(json.loads((tmp_path / "history.json").read_text())) == 25
    assert any((tmp_path / "log").iterdir())


@pytest.mark.parametrize(
    ("kd", "steps"),
    [(None, 2), (None, 5), ("hlfd", 3), ("hlfd", 9), ("hlfd_published", 4), ("cirkd", 5), ("mgd", 2), ("ofd", 1)],
)
def test_interrupted_and_resumed_equals_uninterrupted(
    slices: SliceFolder, tmp_path: Path, kd: str | None, steps: int
) -> None:
    """Four batches an epoch, a validation every three steps, the last after a single one."""
    schedule = Schedule(10, 3, 1e-2)
    uninterrupted = small_trainer(slices, tmp_path / "uninterrupted", kd, schedule)
    uninterrupted.fit()
    assert [entry["step"] for entry in uninterrupted.progress.history] == [3, 6, 9, 10]
    stopped = small_trainer(slices, tmp_path / "parts", kd, schedule)
    stop_after(stopped, steps)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit()
    resumed = small_trainer(slices, tmp_path / "parts", kd, schedule)
    torch.manual_seed(99)
    resumed.resume()
    assert resumed.progress.step == steps
    assert resumed.progress.preparation == stopped.progress.preparation > 0
    resumed.fit()
    assert equal_states(uninterrupted.task.state_dict(), resumed.task.state_dict())
    assert uninterrupted.progress == resumed.progress


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_s_batches_are_taken_in_order_at_a_falling_rate(
    slices: SliceFolder, tmp_path: Path, workers: int
) -> None:
    trainer = small_trainer(slices, tmp_path, schedule=Schedule(10, 3, 1e-2))
    dataset: SliceDataset = trainer.loader.dataset
    trainer.loader = TrainingLoader(dataset, 3, workers)
    images: list[torch.Tensor] = []
    rates: list[float] = []
    spy_on(trainer, lambda batch: images.append(batch.image))
    spy_on(trainer, lambda _: rates.append(trainer.optimizers[0].param_groups[0]["lr"]))
    trainer.fit()
    expected = [batch.image for batch in TrainingLoader(dataset, 3, 0).between(0, 10)]
    assert all(torch.equal(one, other) for one, other in zip(images, expected, strict=True))
    assert rates[0] == 1e-2 and all(later < rate for rate, later in pairwise(rates))


def test_one_pass_over_all_parameters_steps_as_adam_does() -> None:
    """Also where weights lie in memory channels last."""
    fused, plain = (SmallNetwork(2).to(memory_format=torch.channels_last) for _ in range(2))
    plain.load_state_dict(fused.state_dict())
    (optimizer,) = make_optimizers(SupervisedTask(fused), lr=1e-2)
    assert optimizer.defaults["fused"]
    for network, adam in ((fused, optimizer), (plain, torch.optim.Adam(plain.parameters(), lr=1e-2, fused=False))):
        draws = torch.Generator().manual_seed(0)
        for _ in range(3):
            for parameter in network.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=draws).as_strided(
                    parameter.shape, parameter.stride()
                )
            adam.step()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(fused.get_parameter(name), parameter, atol=1e-5, rtol=1e-4)


def test_epochs_become_steps_once() -> None:
    from engine.options import TrainingOptions

    by_epochs = TrainingOptions(epochs=3, val_every=2, lr=0.1, patience=5)
    assert Schedule.from_options(by_epochs, steps_per_epoch=7) == Schedule(21, 14, 0.1, 5)
    assert Schedule.from_options(TrainingOptions(steps=10), steps_per_epoch=7) == Schedule(10, 3, 1e-3)
    assert [step for step in range(1, 11) if Schedule(10, 3, 1e-3).validates_after(step)] == [3, 6, 9, 10]


def test_the_learning_rate_is_half_a_cosine() -> None:
    schedule = Schedule(100, 10, 1e-2)
    assert schedule.lr_at(0) == 1e-2 and schedule.lr_at(100) == pytest.approx(1e-6)
    assert schedule.lr_at(50) == pytest.approx((1e-2 + 1e-6) / 2)
    assert Schedule(100, 10, 1e-8).lr_at(100) == 1e-8


def test_resuming_with_other_settings_is_refused(slices: SliceFolder, tmp_path: Path) -> None:
    small_trainer(slices, tmp_path, schedule=Schedule(4, 4, 1e-2)).fit()
    other = small_trainer(slices, tmp_path, config={"lr": 1e-3})
    with pytest.raises(UserError, match=r"lr = 0\.01, not 0\.001"):
        other.resume()


def test_distillation_trains_adapters_and_exports_none(slices: SliceFolder, tmp_path: Path) -> None:
    trainer = small_trainer(slices, tmp_path, "hlfd", Schedule(4, 4, 1e-2))
    teacher = copy.deepcopy(trainer.task.teacher.network.state_dict())
    state = trainer.task.extra_state()
    adapters = {name: value.clone() for name, value in state.items() if name.startswith("method.")}
    assert adapters
    trainer.fit()
    assert equal_states(teacher, trainer.task.teacher.network.state_dict())
    assert all(not torch.equal(value, trainer.task.extra_state()[name]) for name, value in adapters.items())
    best = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert best["weights"].keys() == SmallNetwork(2).state_dict().keys()


def with_scores(monkeypatch: pytest.MonkeyPatch, scores: Iterator[float]) -> None:
    monkeypatch.setattr(Validation, "__call__", lambda self: ValidationScores(next(scores), {}))


def test_early_stopping_waits_for_its_patience(
    slices: SliceFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best is the second validation, two more bring nothing better."""
    with_scores(monkeypatch, iter([0.4, 0.5, 0.5, 0.4]))
    trainer = small_trainer(slices, tmp_path, schedule=Schedule(80, 3, 1e-9, patience=2))
    assert trainer.fit().step == 12
    resumed = small_trainer(slices, tmp_path, schedule=Schedule(80, 3, 1e-9, patience=2))
    resumed.resume()
    assert resumed.fit().step == 12


def test_every_checkpoint_has_its_own_score(
    slices: SliceFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_run = tmp_path / "checkpoint_kits_tumor_tiny_r18_7.ckpt"
    other_run.touch()
    with_scores(monkeypatch, iter([0.5, 0.2, 0.1]))
    small_trainer(slices, tmp_path, schedule=Schedule(12, 4, 1e-2)).fit()
    metrics = {name: torch.load(tmp_path / name, weights_only=True)["metrics"] for name in ("best.ckpt", "last.ckpt")}
    assert metrics == {"best.ckpt": {"dice": 0.5}, "last.ckpt": {"dice": 0.1}}
    assert other_run.exists()


def test_a_checkpoint_without_an_optimiser_is_not_resumed(slices: SliceFolder, tmp_path: Path) -> None:
    torch.save({"weights": {}}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"last\.ckpt: cannot be resumed"):
        small_trainer(slices, tmp_path).resume()


def test_a_run_of_an_earlier_version_is_not_resumed(slices: SliceFolder, tmp_path: Path) -> None:
    small_trainer(slices, tmp_path, schedule=Schedule(4, 4, 1e-2)).fit()
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    del content["format"]
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"last\.ckpt: was written by an earlier version"):
        small_trainer(slices, tmp_path, schedule=Schedule(4, 4, 1e-2)).resume()
