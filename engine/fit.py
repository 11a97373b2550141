"""The training loop: one for teachers, students alone, and distillation.

It knows a task as a module whose forward takes a batch and returns weighted terms and their sum, "loss",
and whose `network` is what gets validated and exported.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from datasets.dataset import EpochBatches
from distillation.tasks import TrainingTask
from engine.device import Precision, environment
from engine.segmenter import Segmenter
from utils.batch import Batch
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.errors import UserError
from utils.progress import progress

LAST_LR = 1e-6  # as published
SAVE_EVERY = 600.0  # seconds between safety copies inside a long epoch


@dataclass(frozen=True)
class Schedule:
    """How long and how fast; `patience` 0 never stops early; `val_every` counts epochs."""

    epochs: int
    lr: float
    patience: int = 0
    val_every: int = 1

    def lr_in(self, epoch: int) -> float:
        """The learning rate of an epoch: half a cosine from `lr` to 1e-6.

        I. Loshchilov, F. Hutter: SGDR, ICLR 2017 (arXiv 1608.03983), without restarts.
        """
        last = min(LAST_LR, self.lr)
        return last + (self.lr - last) * (1 + math.cos(math.pi * epoch / self.epochs)) / 2


@dataclass
class Progress:
    """Where a run stands; everything that a resumed run needs besides the weights."""

    epoch: int = 0
    batch: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    best: float = -math.inf
    best_epoch: int = -1
    history: list[dict[str, Any]] = field(default_factory=list)


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
        pictures: Callable[[], torch.Tensor] | None = None,
    ) -> None:
        """name: <dataset>_<task>_<model>, for the best checkpoint's file; config: saved in checkpoints.

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
        self.pictures = pictures
        self.progress = Progress()
        self.interrupted = False
        extra = task.extra_optimizers()
        theirs = {id(p) for optimizer in extra for group in optimizer.param_groups for p in group["params"]}
        trained = [p for p in task.parameters() if p.requires_grad and id(p) not in theirs]
        self.optimizers = [torch.optim.Adam(trained, lr=schedule.lr), *extra]

    def fit(self) -> Progress:
        """Train to the last epoch, or until validation has not improved for `patience` epochs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.progress.epoch == 0 and self.progress.batch == 0:
            self.task.prepare(self.loader)
        with SummaryWriter(str(self.folder / "log")) as self.events, self._stop_between_steps():
            bar = progress(
                range(self.progress.epoch, self.schedule.epochs),
                self.name,
                total=self.schedule.epochs,
                initial=self.progress.epoch,
                unit="epoch",
            )
            for epoch in bar:
                if self._out_of_patience():
                    break
                self._train_epoch(epoch)
                entry = self._finish_epoch(epoch)
                bar.set_postfix_str(self._told(entry))
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

    def _train_epoch(self, epoch: int) -> None:
        self.batches.set(epoch, self.progress.batch)
        self.task.train()
        for group in self.optimizers[0].param_groups:
            group["lr"] = self.schedule.lr_in(epoch)
        device = self.precision.device
        sums: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros((), device=device))
        sums |= {key: torch.tensor(value, device=device) for key, value in self.progress.sums.items()}
        saved = time.monotonic()
        bar = progress(self.loader, f"epoch {epoch + 1}/{self.schedule.epochs}", unit="batch", total=len(self.batches))
        for batch in bar:
            terms = self._step(batch.to(device))
            self.progress.batch += 1
            for key, value in terms.items():
                sums[key] = sums[key] + value.detach()
            if self.interrupted or time.monotonic() - saved > SAVE_EVERY:
                self._keep_sums(sums)
                self.save_last()
                saved = time.monotonic()
            if self.interrupted:
                bar.close()
                print(f"interrupted; --resume goes on from {self.folder / 'last.ckpt'}")
                raise KeyboardInterrupt
        self._keep_sums(sums)

    def _step(self, batch: Batch) -> dict[str, torch.Tensor]:
        scaler = self.precision.scaler
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        with self.precision.autocast():
            terms: dict[str, torch.Tensor] = self.task(batch)
        scaler.scale(terms["loss"]).backward()
        for optimizer in self.optimizers:
            scaler.step(optimizer)
        scaler.update()
        self.task.after_step()
        return terms

    def _keep_sums(self, sums: dict[str, torch.Tensor]) -> None:
        self.progress.sums = {key: float(value) for key, value in sums.items()}

    def _finish_epoch(self, epoch: int) -> dict[str, Any]:
        """Validate, log, and write the checkpoints of a finished epoch."""
        state = self.progress
        count = max(state.batch, 1)
        train = {key: value / count for key, value in state.sums.items()}
        if not math.isfinite(train["loss"]):
            raise UserError(
                f"{self.folder}: the loss of epoch {epoch + 1} is not finite; lower --lr or use --amp off "
                "(last.ckpt still holds the epoch before)"
            )
        entry: dict[str, Any] = {"epoch": epoch, "lr": self.schedule.lr_in(epoch), "train": train}
        last = epoch + 1 == self.schedule.epochs
        better = False
        if last or (epoch + 1) % self.schedule.val_every == 0:
            entry["score"], entry["validation"] = self.validate()
            better = entry["score"] > state.best
        state.history.append(entry)
        state.epoch, state.batch, state.sums = epoch + 1, 0, {}
        if better:
            state.best, state.best_epoch = entry["score"], epoch
            self._save_best(entry)
        self._log(entry)
        self.save_last()
        return entry

    def _out_of_patience(self) -> bool:
        state = self.progress
        waited = state.epoch - 1 - state.best_epoch
        return 0 < self.schedule.patience <= waited and state.best_epoch >= 0

    def _told(self, entry: dict[str, Any]) -> str:
        score = f", Dice {entry['score']:.3f}" if "score" in entry else ""
        return f"loss {entry['train']['loss']:.3f}{score}, best {self.progress.best:.3f}"

    def _log(self, entry: dict[str, Any]) -> None:
        epoch = entry["epoch"]
        for term, value in entry["train"].items():
            self.events.add_scalar(f"train/{term}", value, epoch)
        for score, value in entry.get("validation", {}).items():
            self.events.add_scalar(f"validation/{score}", value, epoch)
        self.events.add_scalar("lr", entry["lr"], epoch)
        if self.pictures is not None and "score" in entry:
            self.events.add_image("validation/contours", self.pictures(), epoch)
        (self.folder / "history.json").write_text(json.dumps(self.progress.history, indent=1), encoding="utf-8")

    def _exported(self) -> dict[str, Any]:
        """What prediction needs: the network's own weights, without teacher or adapters."""
        return {
            **self.segmenter.description(),
            "weights": self.segmenter.network.state_dict(),
            "config": self.config,
            "environment": environment(self.precision.device),
            "epoch": self.progress.epoch,
        }

    def _save_best(self, entry: dict[str, Any]) -> None:
        best = self.folder / "best.ckpt"
        save_checkpoint(best, {**self._exported(), "metrics": {"dice": entry["score"], **entry["validation"]}})
        pattern = f"checkpoint_{self.name}_"
        for older in self.folder.glob(f"{pattern}*.ckpt"):
            older.unlink()
        shutil.copyfile(best, self.folder / f"{pattern}{entry['epoch'] + 1}.ckpt")

    def save_last(self) -> None:
        """Everything that an interrupted run needs to end as an uninterrupted one."""
        beside = {k: v for k, v in self.task.state_dict().items() if not k.startswith("network.")}
        device = self.precision.device
        cuda = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
        content = {
            **self._exported(),
            "metrics": {"dice": self.progress.best},
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
        for key, value in self.config.items():
            if content["config"].get(key) != value:
                raise UserError(
                    f"{path}: was trained with {key} = {content['config'].get(key)}, not {value}; "
                    "give the same options or another --checkpoint_path"
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
