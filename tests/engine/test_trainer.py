"""The training loop: what it learns, what it keeps, and that an interruption changes nothing."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.frame import Frame
from datasets.labelled_cases import cases_in_slices
from datasets.loader import make_loader
from datasets.slices.slice_folder import SliceFolder
from distillation import build_method
from distillation.task import Distiller, SupervisedTask, TrainingTask
from engine.device import Precision
from engine.evaluation.evaluate import mean_dice, score_case
from engine.segmenter import Segmenter
from engine.training.trainer import Schedule, Trainer
from tests.small import SmallNetwork, equal_states, write_bare_archive
from utils.batch import Batch
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> SliceFolder:
    return SliceFolder.open(write_bare_archive(tmp_path_factory.mktemp("slices")), "kits", "tumor")


def make_trainer(
    slices: SliceFolder,
    folder: Path,
    kd: list[str] | None = None,
    schedule: Schedule | None = None,
    config: dict[str, Any] | None = None,
) -> Trainer:
    torch.manual_seed(0)
    network = SmallNetwork(2)
    task: TrainingTask = SupervisedTask(network)
    if kd:
        teacher = SmallNetwork(2, width=6)
        task = Distiller(network, teacher, build_method(kd, network.channels, teacher.channels))
    segmenter = Segmenter(network, "tiny", "kits", slices.label_map, Frame(64, 0), (-200.0, 300.0))
    names = slices.train[:-4]
    loader, batches = make_loader(slices, names, segmenter.frame, "paper", 3, seed=1, workers=0)
    last = list(slices.cases)[-1]

    def validate() -> tuple[float, dict[str, Any]]:
        rows = [row for case in cases_in_slices(slices, [last], None) for row in score_case(segmenter, case)]
        return mean_dice(rows), {"tumor/dice": rows[0]["dice"]}

    return Trainer(
        task, segmenter, loader, batches, validate, schedule or Schedule(3, 1e-2), Precision("off", CPU),
        folder, "kits_tumor_tiny", config or {"lr": 1e-2},
        {"train": [], "val": [last]},
    )  # fmt: skip


def stop_after(trainer: Trainer, steps: int) -> None:
    """Ask the trainer to stop, as Ctrl-C does, while the given step runs."""
    count = 0

    def counted(batch: Batch) -> None:
        nonlocal count
        count += 1
        trainer.interrupted = count == steps

    spy_on(trainer, counted)


def spy_on(trainer: Trainer, see: Callable[[Batch], object]) -> None:
    """Show every batch before its step."""
    step = trainer.step

    def watched(batch: Batch) -> Any:
        see(batch)
        return step(batch)

    trainer.step = watched  # type: ignore[method-assign]


def test_training_learns_and_keeps_the_best(slices: SliceFolder, tmp_path: Path) -> None:
    trainer = make_trainer(slices, tmp_path, schedule=Schedule(25, 1e-2))
    progress = trainer.fit()
    losses = [entry["train"]["loss"] for entry in progress.history]
    assert losses[-1] < 0.5 * losses[0]
    assert progress.best > 0.6
    best = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert best["metrics"]["dice"] == progress.best == max(entry["score"] for entry in progress.history)
    named = [file.name for file in tmp_path.glob("checkpoint_*")]
    assert named == [f"checkpoint_kits_tumor_tiny_{progress.best_epoch + 1}.ckpt"]
    assert len(json.loads((tmp_path / "history.json").read_text())) == 25
    assert any((tmp_path / "log").iterdir())


@pytest.mark.parametrize("kd", [None, ["hlfd"], ["hlfd_published"]])
@pytest.mark.parametrize("steps", [2, 4, 5])
def test_interrupted_and_resumed_equals_uninterrupted(
    slices: SliceFolder, tmp_path: Path, kd: list[str] | None, steps: int
) -> None:
    """Four batches an epoch: the stops fall inside an epoch, at its end, and in the next one."""
    whole = make_trainer(slices, tmp_path / "whole", kd)
    whole.fit()
    stopped = make_trainer(slices, tmp_path / "parts", kd)
    stop_after(stopped, steps)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit()
    resumed = make_trainer(slices, tmp_path / "parts", kd)
    torch.manual_seed(99)
    resumed.resume()
    assert resumed.steps_done == steps
    assert resumed.progress.preparation == stopped.progress.preparation > 0
    resumed.fit()
    assert equal_states(whole.task.state_dict(), resumed.task.state_dict())
    assert whole.progress == resumed.progress


@pytest.mark.parametrize("steps", [2, 3, 5, 9])
def test_counted_steps_resume_too(slices: SliceFolder, tmp_path: Path, steps: int) -> None:
    """Four batches an epoch, a validation every three steps, the last after a single one."""
    schedule = Schedule(epochs=1, lr=1e-2, val_every=3, steps=10)
    whole = make_trainer(slices, tmp_path / "whole", ["hlfd"], schedule)
    whole.fit()
    assert len(whole.progress.history) == 4 and all("score" in entry for entry in whole.progress.history)
    stopped = make_trainer(slices, tmp_path / "parts", ["hlfd"], schedule)
    stop_after(stopped, steps)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit()
    resumed = make_trainer(slices, tmp_path / "parts", ["hlfd"], schedule)
    resumed.resume()
    assert resumed.steps_done == steps
    resumed.fit()
    assert equal_states(whole.task.state_dict(), resumed.task.state_dict())
    assert whole.progress == resumed.progress


@pytest.mark.parametrize("workers", [0, 2])
def test_counted_steps_take_the_epochs_batches_at_a_falling_rate(
    slices: SliceFolder, tmp_path: Path, workers: int
) -> None:
    by_epochs = make_trainer(slices, tmp_path / "epochs")
    by_steps = make_trainer(slices, tmp_path / "steps", schedule=Schedule(1, 1e-2, val_every=3, steps=10))
    by_steps.loader, by_steps.batches = make_loader(
        slices, slices.train[:-4], by_steps.segmenter.frame, "paper", 3, seed=1, workers=workers
    )
    expected: list[torch.Tensor] = []
    images: list[torch.Tensor] = []
    rates: list[float] = []
    spy_on(by_epochs, lambda batch: expected.append(batch.image))
    spy_on(by_steps, lambda batch: images.append(batch.image))
    spy_on(by_steps, lambda _: rates.append(by_steps.optimizers[0].param_groups[0]["lr"]))
    by_epochs.fit()
    by_steps.fit()
    assert len(expected) == 12 and len(images) == 10
    assert all(map(torch.equal, images, expected))
    assert rates[0] == 1e-2 and all(later < rate for rate, later in pairwise(rates))


def test_resuming_with_other_settings_is_refused(slices: SliceFolder, tmp_path: Path) -> None:
    make_trainer(slices, tmp_path, schedule=Schedule(1, 1e-2)).fit()
    other = make_trainer(slices, tmp_path, config={"lr": 1e-3})
    with pytest.raises(UserError, match=r"lr = 0\.01, not 0\.001"):
        other.resume()


def test_distillation_trains_adapters_and_exports_none(slices: SliceFolder, tmp_path: Path) -> None:
    trainer = make_trainer(slices, tmp_path, ["hlfd"], Schedule(1, 1e-2))
    teacher = copy.deepcopy(trainer.task.teacher.state_dict())
    adapters = {k: v.clone() for k, v in trainer.task.state_dict().items() if not k.startswith("network.")}
    assert adapters
    trainer.fit()
    assert equal_states(teacher, trainer.task.teacher.state_dict())
    assert all(not torch.equal(value, trainer.task.state_dict()[key]) for key, value in adapters.items())
    best = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert best["weights"].keys() == SmallNetwork(2).state_dict().keys()


@pytest.mark.parametrize(("val_every", "epochs"), [(1, 3), (2, 6)])
def test_early_stopping_waits_for_its_patience(
    slices: SliceFolder, tmp_path: Path, val_every: int, epochs: int
) -> None:
    trainer = make_trainer(slices, tmp_path, schedule=Schedule(20, 1e-9, patience=2, val_every=val_every))
    trainer.validate = lambda: (0.5, {})
    assert trainer.fit().epoch == epochs  # the best is the first validation, two more bring nothing


def test_every_checkpoint_tells_its_own_score(slices: SliceFolder, tmp_path: Path) -> None:
    other_run = tmp_path / "checkpoint_kits_tumor_tiny_r18_7.ckpt"
    other_run.touch()
    trainer = make_trainer(slices, tmp_path)
    scores = iter([0.5, 0.2, 0.1])
    trainer.validate = lambda: (next(scores), {})
    trainer.fit()
    told = {name: torch.load(tmp_path / name, weights_only=True)["metrics"] for name in ("best.ckpt", "last.ckpt")}
    assert told == {"best.ckpt": {"dice": 0.5}, "last.ckpt": {"dice": 0.1}}
    assert other_run.exists()


def test_a_checkpoint_without_an_optimiser_is_not_resumed(slices: SliceFolder, tmp_path: Path) -> None:
    torch.save({"weights": {}}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"last\.ckpt: cannot be resumed"):
        make_trainer(slices, tmp_path).resume()


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_loss_that_is_not_finite_stops_with_advice_and_is_not_saved(
    slices: SliceFolder, tmp_path: Path, interrupted: bool
) -> None:
    trainer = make_trainer(slices, tmp_path)
    with torch.no_grad():
        trainer.segmenter.network.head.weight.fill_(torch.nan)
    trainer.interrupted = interrupted
    with pytest.raises(UserError, match=r"not finite after batch \d of epoch 1/\d+; lower --lr"):
        trainer.fit()
    assert not (tmp_path / "last.ckpt").exists()
