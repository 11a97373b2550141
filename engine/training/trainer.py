"""The training loop: one for teachers, students alone, and distillation.

It knows a task as a module whose forward takes a batch and returns weighted terms and their sum, "loss",
and whose `network` is what gets validated and exported.
"""

from __future__ import annotations

import math
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from datasets.loader import EpochBatches
from distillation.task import TrainingTask
from engine.device import Precision, environment
from engine.segmenter import Segmenter
from utils.batch import Batch
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.errors import UserError
from utils.files import make_folder, write_json
from utils.progress import progress

LAST_LR = 1e-6  # as published
SAVE_EVERY = 600.0  # seconds between safety copies inside a long epoch


@dataclass(frozen=True)
class Schedule:
    """How long and how fast; `patience` 0 never stops early.

    A run is a row of rounds, each a line of the history. A round is an epoch, and every `val_every`-th is
    validated; or, where `steps` counts the optimiser's steps, it is the `val_every` steps up to a validation.
    """

    epochs: int
    lr: float
    patience: int = 0
    val_every: int = 1
    steps: int | None = None

    @property
    def rounds(self) -> int:
        return self.epochs if self.steps is None else math.ceil(self.steps / self.val_every)

    def steps_of(self, number: int, epoch: int) -> range:
        """The steps of a round, counted from the run's first; epoch: how many steps one takes."""
        if self.steps is None:
            return range(number * epoch, (number + 1) * epoch)
        return range(self.reached(number), self.reached(number + 1))

    def reached(self, rounds: int) -> int:
        """How many epochs, or steps, so many rounds are."""
        return rounds if self.steps is None else min(rounds * self.val_every, self.steps)

    def told(self, rounds: int) -> str:
        """Where a run stands after so many rounds, for people."""
        unit, total = ("epoch", self.epochs) if self.steps is None else ("step", self.steps)
        return f"{unit} {self.reached(rounds)}/{total}"

    def validated(self, number: int) -> bool:
        """Whether a round ends with a validation; the last one does."""
        return self.steps is not None or (number + 1) % self.val_every == 0 or number + 1 == self.rounds

    def lr_at(self, done: float) -> float:
        """The learning rate after a share of the run: half a cosine from `lr` to 1e-6.

        I. Loshchilov, F. Hutter: SGDR, ICLR 2017 (arXiv 1608.03983), without restarts.
        """
        last = min(LAST_LR, self.lr)
        return last + (self.lr - last) * (1 + math.cos(math.pi * done)) / 2


@dataclass
class Progress:
    """Where a run stands; everything that a resumed run needs besides the weights.

    epoch: the round at hand, and batch: the steps of it that are done (see `Schedule`); preparation: the seconds
    before the first.
    """

    epoch: int = 0
    batch: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    best: float = -math.inf
    best_epoch: int = -1
    history: list[dict[str, Any]] = field(default_factory=list)
    preparation: float = field(default=0.0, compare=False)

    def metrics(self) -> dict[str, float]:
        """The validation scores of the last finished epoch, if it was validated."""
        last = self.history[-1] if self.history else {}
        return {"dice": last["score"], **last["validation"]} if "score" in last else {}


def make_optimizers(task: TrainingTask, lr: float) -> list[torch.optim.Optimizer]:
    """Adam on what the task trains, and after it the task's own, whose parameters Adam leaves alone."""
    extra = task.extra_optimizers()
    theirs = {id(p) for optimizer in extra for group in optimizer.param_groups for p in group["params"]}
    trained = [p for p in task.parameters() if p.requires_grad and id(p) not in theirs]
    return [torch.optim.Adam(trained, lr=lr), *extra]


def take_step(
    task: TrainingTask, batch: Batch, optimizers: Sequence[torch.optim.Optimizer], precision: Precision
) -> dict[str, torch.Tensor]:
    """Forward, backward and the optimisers' step on a batch that is on the device: the terms of its loss."""
    for optimizer in optimizers:
        optimizer.zero_grad()
    with precision.autocast():
        terms: dict[str, torch.Tensor] = task(batch)
    precision.scaler.scale(terms["loss"]).backward()
    for optimizer in optimizers:
        precision.scaler.step(optimizer)
    precision.scaler.update()
    task.after_step()
    return terms


class Trainer:
    """Trains `task` and keeps last.ckpt, best.ckpt, history.json and TensorBoard events in `folder`."""

    def __init__(
        self,
        task: TrainingTask,
        segmenter: Segmenter,
        loader: DataLoader[Batch],
        batches: EpochBatches,
        validate: Callable[[], tuple[float, dict[str, Any]]],
        schedule: Schedule,
        precision: Precision,
        folder: Path,
        name: str,
        config: dict[str, Any],
        cases: dict[str, list[str]],
        pictures: Callable[[], torch.Tensor] | None = None,
    ) -> None:
        """name: <dataset>_<task>_<model>, for the best checkpoint's file.

        config and cases (train, val) are saved in checkpoints; a run is resumed only with the same config.
        validate returns the score that picks best.ckpt and the scores to log; pictures, [3, H, W] in 0..1.
        """
        self.task = task
        self.segmenter = segmenter
        self.loader = loader
        self.batches = batches
        self.validate = validate
        self.schedule = schedule
        self.precision = precision
        self.folder = folder
        self.name = name
        self.config = config
        self.cases = cases
        self.pictures = pictures
        self.progress = Progress()
        self.interrupted = False
        self.seconds, self.timed_steps = 0.0, 0
        self.optimizers = make_optimizers(task, schedule.lr)

    @property
    def steps_done(self) -> int:
        """How many steps of the run, those before a resumption too."""
        return self.schedule.steps_of(self.progress.epoch, self.batches.batches).start + self.progress.batch

    @property
    def total_steps(self) -> int:
        """How many steps the whole run has."""
        return self.schedule.steps or self.schedule.epochs * self.batches.batches

    def fit(self) -> Progress:
        """Train to the last round, or until validation has not improved for `patience` rounds.

        `seconds` and `timed_steps` then tell what the steps took here, a resumed run's earlier ones left out.
        """
        make_folder(self.folder)
        if self.progress.epoch == 0 and self.progress.batch == 0:
            started = time.monotonic()
            self.task.prepare(self.loader)
            self.progress.preparation = time.monotonic() - started
        with SummaryWriter(str(self.folder / "log")) as self.events, self._stop_between_steps():
            for epoch in range(self.progress.epoch, self.schedule.rounds):
                if self._out_of_patience():
                    print(f"no better score in {self.schedule.patience} validations: stopped")
                    break
                started, before = time.monotonic(), self.progress.batch
                slices = self._train_epoch(epoch)
                seconds = time.monotonic() - started
                self.seconds += seconds
                self.timed_steps += self.progress.batch - before
                print(f"{self._told(self._finish_epoch(epoch))}, {slices / seconds:.1f} slices/s", flush=True)
        return self.progress

    @contextmanager
    def _stop_between_steps(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM let the step in hand end, so that what is saved is whole; a second one kills."""

        def interrupt(number: int, frame: object) -> None:
            self.interrupted = True
            signal.signal(number, signal.SIG_DFL)

        before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _train_epoch(self, epoch: int) -> int:
        """How many slices it took, from where the epoch was left."""
        self.task.train()
        steps = self.schedule.steps_of(epoch, self.batches.batches)[self.progress.batch :]
        device = self.precision.device
        sums: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros((), device=device))
        sums |= {key: torch.tensor(value, device=device) for key, value in self.progress.sums.items()}
        saved = time.monotonic()
        bar = progress(self._deal(steps), self.schedule.told(epoch + 1), unit="batch", total=len(steps))
        seen = 0
        for batch in bar:
            self._set_progress(epoch)
            terms = self.step(batch.to(device))
            self.progress.batch += 1
            seen += len(batch.image)
            for key, value in terms.items():
                sums[key] = sums[key] + value.detach()
            if self.interrupted or time.monotonic() - saved > SAVE_EVERY:
                self._keep_sums(sums)
                self.save_last()
                saved = time.monotonic()
            if self.interrupted:
                bar.close()
                self._end_interrupted()
        self._keep_sums(sums)
        return seen

    def _deal(self, steps: range) -> Iterator[Batch]:
        """The batches of these steps of the run, one epoch after another."""
        while steps:
            self.batches.set(*divmod(steps[0], self.batches.batches))
            count = min(len(steps), len(self.batches))
            yield from islice(self.loader, count)
            steps = steps[count:]

    def _set_progress(self, epoch: int) -> None:
        """The learning rate stays within an epoch, as published, and falls with every counted step."""
        done = self.steps_done / self.total_steps
        by_epoch = self.schedule.steps is None
        for group in self.optimizers[0].param_groups:
            group["lr"] = self.schedule.lr_at(epoch / self.schedule.epochs if by_epoch else done)
        self.task.set_progress(done)

    def _end_interrupted(self) -> NoReturn:
        print(f"interrupted; --resume goes on from {self.folder / 'last.ckpt'}")
        raise KeyboardInterrupt

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        """One step of the optimisers on a batch that is on the device: the terms of its loss."""
        return take_step(self.task, batch, self.optimizers, self.precision)

    def _keep_sums(self, sums: dict[str, torch.Tensor]) -> None:
        """Take the sums over; UserError before anything spoilt is saved."""
        self.progress.sums = {key: float(value) for key, value in sums.items()}
        if not math.isfinite(self.progress.sums["loss"]):
            raise UserError(
                f"{self.folder}: the loss is not finite after batch {self.progress.batch} of "
                f"{self.schedule.told(self.progress.epoch + 1)}; lower --lr or use --amp off"
            )

    def _finish_epoch(self, epoch: int) -> dict[str, Any]:
        """Validate, log, and write the checkpoints of a finished epoch."""
        state = self.progress
        count = max(state.batch, 1)
        train = {key: value / count for key, value in state.sums.items()}
        rate = self.optimizers[0].param_groups[0]["lr"]
        entry: dict[str, Any] = {"epoch": epoch, "lr": rate, "train": train}
        better = False
        if self.schedule.validated(epoch):
            entry["score"], entry["validation"] = self.validate()
            better = entry["score"] > state.best
        state.history.append(entry)
        state.epoch, state.batch, state.sums = epoch + 1, 0, {}
        if better:
            state.best, state.best_epoch = entry["score"], epoch
            self._save_best()
        self._log(entry)
        self.save_last()
        if self.interrupted and epoch + 1 < self.schedule.rounds:
            self._end_interrupted()
        return entry

    def _out_of_patience(self) -> bool:
        state = self.progress
        waited = sum("score" in entry for entry in state.history[state.best_epoch + 1 :])
        return 0 < self.schedule.patience <= waited

    def _told(self, entry: dict[str, Any]) -> str:
        score = f"  Dice {entry['score']:.4f}  best {self.progress.best:.4f}" if "score" in entry else ""
        return f"{self.schedule.told(entry['epoch'] + 1)}  loss {entry['train']['loss']:.4f}{score}"

    def _log(self, entry: dict[str, Any]) -> None:
        epoch = entry["epoch"]
        for term, value in entry["train"].items():
            self.events.add_scalar(f"train/{term}", value, epoch)
        for score, value in entry.get("validation", {}).items():
            self.events.add_scalar(f"validation/{score}", value, epoch)
        self.events.add_scalar("lr", entry["lr"], epoch)
        if self.pictures is not None and "score" in entry:
            self.events.add_image("validation/contours", self.pictures(), epoch)
        write_json(self.folder / "history.json", self.progress.history)

    def _exported(self) -> dict[str, Any]:
        """What prediction needs: the network's own weights, without teacher or adapters."""
        return {
            **self.segmenter.description(),
            "weights": self.segmenter.network.state_dict(),
            "config": self.config,
            "environment": environment(self.precision.device),
            "epoch": self.progress.epoch,
            "cases": self.cases,
            "metrics": self.progress.metrics(),
        }

    def _save_best(self) -> None:
        """best.ckpt, and the same under the name that tells run and epoch, in place of an earlier one."""
        content = self._exported()
        save_checkpoint(self.folder / "best.ckpt", content)
        named = f"checkpoint_{self.name}_"
        for older in self.folder.glob(f"{named}*.ckpt"):
            if older.stem.removeprefix(named).isdigit():
                older.unlink()
        save_checkpoint(self.folder / f"{named}{self.schedule.reached(self.progress.epoch)}.ckpt", content)

    def save_last(self) -> None:
        """Everything that an interrupted run needs to end as an uninterrupted one."""
        beside = {k: v for k, v in self.task.state_dict().items() if not k.startswith("network.")}
        device = self.precision.device
        cuda = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
        content = {
            **self._exported(),
            "task_state": beside,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.precision.scaler.state_dict(),
            "progress": vars(self.progress),
            "random": {"cpu": torch.get_rng_state(), **cuda},
        }
        save_checkpoint(self.folder / "last.ckpt", content)

    def resume(self) -> None:
        """Go on from last.ckpt; UserError if it belongs to a run with other settings."""
        path = self.folder / "last.ckpt"
        content = load_checkpoint(path, self.precision.device)
        if "optimizers" not in content:
            raise UserError(f"{path}: cannot be resumed, it holds no optimiser; give another --checkpoint_path")
        for key, value in self.config.items():
            if content["config"].get(key) != value:
                raise UserError(
                    f"{path}: was trained with {key} = {content['config'].get(key)}, not {value}; "
                    "give the same options and data, or another --checkpoint_path"
                )
        weights = {f"network.{key}": value for key, value in content["weights"].items()}
        self.task.load_state_dict({**weights, **content["task_state"]})
        for optimizer, state in zip(self.optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.precision.scaler.load_state_dict(content["scaler"])
        self.progress = Progress(**content["progress"])
        torch.set_rng_state(content["random"]["cpu"].cpu())
        if "cuda" in content["random"]:
            torch.cuda.set_rng_state(content["random"]["cuda"].cpu(), self.precision.device)
