"""The training loop: one for teachers, students alone, and distillation.

It knows a task as a module whose forward takes a batch and returns weighted terms and their sum, "loss", and whose
`network` is what gets validated and exported.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from datasets.loader import TrainingLoader
from distillation.task import TrainingTask
from engine.device import Precision, deterministic
from engine.options import SAVE_EVERY
from engine.provenance import provenance
from engine.segmenter import Segmenter
from engine.training.event_log import EventLog, event_log
from engine.training.health import Health, NotFinite, skip_if
from engine.training.interruption import Interruption, stop_between_steps
from engine.training.run_folder import RunFolder
from engine.training.schedule import Schedule
from engine.training.validation import Validation
from engine.training.validation_loss import ValidationLoss
from utils.across import ranks, share_step, take_from_first
from utils.allocation import freed_memory_kept
from utils.batch import Batch
from utils.checkpoint import shorten
from utils.errors import UserError
from utils.numbers import Interval
from utils.progress import print_line, progress

FUSED_DEVICES = ("cpu", "cuda", "mps")
"""Where Adam updates all parameters in one pass."""


@dataclass
class Progress:
    """Where a run stands: what resuming needs besides weights, optimisers and random state.

    prepared: whether what comes before the first step is done; step: how many are done; sums: of each term over the
    `summed` steps since the last validation; preparation: the seconds before the first step; overflows: steps that
    fp16 skipped.
    """

    prepared: bool = False
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    summed: int = 0
    best: float = -math.inf
    best_step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    preparation: float = field(default=0.0, compare=False)
    overflows: int = 0


@dataclass
class Stopwatch:
    """The time of training steps in this process, without validations; lap: since the last of these."""

    seconds: float = 0.0
    steps: int = 0
    lap_slices: int = 0
    lap_started: float = 0.0

    def start_lap(self) -> None:
        self.lap_slices, self.lap_started = 0, time.monotonic()

    def end_lap(self) -> float:
        """Slices per second of the lap."""
        seconds = time.monotonic() - self.lap_started
        self.seconds += seconds
        return self.lap_slices / seconds


class Trainer:
    """Trains `task` by the schedule, validates, and keeps its state in a `RunFolder`."""

    def __init__(
        self,
        task: TrainingTask,
        segmenter: Segmenter,
        loader: TrainingLoader,
        validation: Validation,
        schedule: Schedule,
        precision: Precision,
        folder: RunFolder,
        save_every: Interval = SAVE_EVERY,
    ) -> None:
        """segmenter: of the task's network; save_every: from one last.ckpt to the next, between validations."""
        self.task, self.segmenter, self.loader, self.validation = task, segmenter, loader, validation
        self.schedule, self.precision, self.folder, self.save_every = schedule, precision, folder, save_every
        self.optimizers = make_optimizers(task, schedule.lr)
        self.progress = Progress()
        self.term_sums: dict[str, Tensor] = {}
        self.sums_before: dict[str, Tensor] = {}
        """Without the last step."""
        self.stopwatch = Stopwatch()
        self.interruption = Interruption()
        # On a GPU a step is judged while the next one runs, where the optimisers can leave a bad one out by themselves.
        on_its_own = precision.device.type == "cuda" and all(each.defaults.get("fused") for each in self.optimizers)
        self.health = Health(task, precision, behind=int(on_its_own))
        self.validation_loss = ValidationLoss(task, loader.dataset, validation, self.health)
        self.deterministic = False
        self.stops = False
        """Whether all ranks are to stop after this step."""

    def repeatably(self) -> AbstractContextManager[None]:
        """To train and score in; where `deterministic` was asked for, that it holds."""
        return deterministic() if self.deterministic else nullcontext()

    def fit(self) -> Progress:
        """Train to the last step, or until validation has not improved for `patience` times."""
        state, schedule = self.progress, self.schedule
        self.folder.make()
        if state.step == 0 and not state.prepared:
            self._prepare()
            # From here on the folder is this run's, and no best.ckpt is ever without its last.ckpt.
            self.save_last()
        take_from_first(self.task)
        self.task.train()
        log = event_log(self.folder.log, state.step) if self.folder.writes else nullcontext()
        kept = freed_memory_kept(self.precision.device.type == "cpu")
        with log as events, kept, stop_between_steps(self.interruption):
            batches = self.loader.between(state.step, schedule.steps)
            bar = progress(batches, "training", total=schedule.steps, initial=state.step, unit="step")
            try:
                self._take_steps(bar, events)
            except NotFinite as error:
                raise self._stopped(error) from None
        return state

    def _take_steps(self, bar: tqdm[Batch], events: EventLog | None) -> None:
        state, schedule, device = self.progress, self.schedule, self.precision.device
        self.stopwatch.start_lap()
        saved = time.monotonic()
        for batch in bar:
            if self._is_out_of_patience():
                print_line(f"no better score in {schedule.patience} validations: stopped")
                break
            for group in self.optimizers[0].param_groups:
                group["lr"] = schedule.lr_at(state.step)
            self.task.before_step(state.step, schedule.steps)
            terms = self.step(batch.to(device))
            self.sums_before = self.term_sums
            summed = {term: self.term_sums.get(term, 0) + value.detach() for term, value in terms.items()}
            self.term_sums = {**self.term_sums, **summed}
            state.step, state.summed = state.step + 1, state.summed + 1
            self.stopwatch.steps += 1
            self.stopwatch.lap_slices += batch.slices * max(1, len(batch.parts))

            validates = schedule.validates_after(state.step)
            if validates:
                self._validate(events)
            due = self.save_every.is_over(state.step, time.monotonic() - saved)
            stops = self.stops if ranks() > 1 else self.interruption.requested
            if validates or due or stops:
                self.save_last()
                saved = time.monotonic()
            if validates:
                self.stopwatch.start_lap()
            if stops and state.step < schedule.steps:
                bar.close()
                print(f"interrupted; --resume continues from {self.folder.last}")
                raise KeyboardInterrupt

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Forward, backward and the optimisers' step on a batch that is on the device: the terms of its loss.

        `NotFinite` in place of an update that would spoil the network; where `health` is a step behind, of the step
        before, whose update has changed nothing.
        """
        self.health.remember()
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        with self.precision.autocast():
            terms: dict[str, Tensor] = self.task(batch)
        self.precision.scaler.scale(terms["loss"]).backward()
        self.stops = share_step(self.task, self.task.network, self.interruption.requested)
        bad = self.health.look(terms, batch.cases)
        self.progress.overflows += self.health.judge()
        for optimizer in self.optimizers:
            if self.health.behind:
                skip_if(optimizer, bad, self.precision.scaler)
            self.precision.scaler.step(optimizer)
        self.precision.scaler.update()
        self.task.after_step()
        return terms

    def settle(self) -> None:
        """Have every step so far judged; `NotFinite` as of `step`."""
        self.progress.overflows += self.health.judge(behind=0)

    def _prepare(self) -> None:
        started = time.monotonic()
        self.task.prepare(self.loader)
        self.progress.preparation = time.monotonic() - started
        self.progress.prepared = True

    def _validate(self, events: EventLog | None) -> None:
        """Score the network; log, print, and keep it if it is the best so far."""
        state = self.progress
        self._fetch_sums()
        speed = self.stopwatch.end_lap()
        means = {term: value / state.summed for term, value in state.sums.items()}
        scores = self.validation()
        on_validation = self.validation_loss() if events else {}
        self.health.validated(scores.found)
        rate = self.optimizers[0].param_groups[0]["lr"]
        state.history.append(
            {"step": state.step, "lr": rate, "train": means, "score": scores.dice, "validation": scores.metrics}
        )
        state.sums, state.summed, self.term_sums = {}, 0, {}
        if scores.dice > state.best:
            state.best, state.best_step = scores.dice, state.step
            self.folder.save_best(self._exported(), -(-state.step // self.loader.steps_per_epoch))
        self.folder.save_history(state.history)
        numbers = {
            **{f"train_loss/{name}": value for name, value in means.items()},
            **{f"validation_loss/{name}": value for name, value in on_validation.items()},
            **{f"validation/{name}": value for name, value in scores.metrics.items()},
            "lr": rate,
        }
        if events:
            events.add(state.step, numbers, {"validation/contours": self.validation.picture()})
        skipped = f", {state.overflows} steps skipped as fp16 overflowed" if state.overflows else ""
        print_line(
            f"step {state.step}/{self.schedule.steps}  loss {means['loss']:.4f}  Dice {scores.dice:.4f}  "
            f"best {state.best:.4f}, {speed:.1f} slices/s{skipped}"
        )
        self.task.train()

    def _is_out_of_patience(self) -> bool:
        if not self.schedule.patience:
            return False
        waited: int = sum(entry["step"] > self.progress.best_step for entry in self.progress.history)
        return waited >= self.schedule.patience

    def _fetch_sums(self) -> None:
        """Bring the sums from the device, of steps that have all been judged."""
        self.settle()
        self.progress.sums = {term: float(value) for term, value in self.term_sums.items()}

    def _stopped(self, error: NotFinite) -> UserError:
        """Save the state before the step that was not taken; what to tell the user."""
        if self.health.behind:  # It has been counted.
            self.progress.step, self.progress.summed = self.progress.step - 1, self.progress.summed - 1
            self.term_sums = self.sums_before
        step = self.progress.step
        start_from = ""
        if step:
            self.save_last()
            start_from = f"--init {self.folder.last} starts from the weights before it, "
        return UserError(
            f"{self.folder.path}: stopped before step {step + 1} of {self.schedule.steps}: {error}; look at these "
            f"cases, or train anew with a lower --lr or --amp off ({start_from}another --checkpoint_path keeps these)"
        )

    def _exported(self) -> dict[str, Any]:
        """What prediction needs: the network's own weights, without teacher or adapters."""
        history = self.progress.history
        last = history[-1] if history and history[-1]["step"] == self.progress.step else None
        return {
            **self.segmenter.description(),
            "weights": self.segmenter.network.state_dict(),
            **provenance(self.precision.device),
            "step": self.progress.step,
            "metrics": {"dice": last["score"], **last["validation"]} if last else {},
        }

    def save_last(self) -> None:
        """Everything that an interrupted run needs to end as an uninterrupted one."""
        if not self.folder.writes:
            return
        if self.progress.summed:
            self._fetch_sums()
        device = self.precision.device
        cuda = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
        state = {
            "task_state": self.task.extra_state(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.precision.scaler.state_dict(),
            "progress": asdict(self.progress),
            "random": {"cpu": torch.get_rng_state(), **cuda},
        }
        self.folder.save_last(self._exported(), state)

    def resume(self) -> None:
        """Continue from last.ckpt; UserError if it is of a run with other settings."""
        content = self.folder.load_last()
        try:
            self._take_over(content)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.folder.last}: cannot be resumed by this version of the code ({shorten([error])}); give another "
                "--checkpoint_path"
            ) from None

    def _take_over(self, content: dict[str, Any]) -> None:
        device = self.precision.device
        self.task.load_extra_state(content["weights"], content["task_state"])
        for optimizer, state in zip(self.optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.precision.scaler.load_state_dict(content["scaler"])
        self.progress = Progress(**content["progress"])
        self.term_sums = {term: torch.tensor(value, device=device) for term, value in self.progress.sums.items()}
        torch.set_rng_state(content["random"]["cpu"].cpu())
        if "cuda" in content["random"]:
            torch.cuda.set_rng_state(content["random"]["cuda"].cpu(), device)


def make_optimizers(task: TrainingTask, lr: float) -> Sequence[torch.optim.Optimizer]:
    """Adam on what the task trains, and after it the task's own, whose parameters Adam leaves alone.

    D. P. Kingma, J. Ba: Adam: A Method for Stochastic Optimization, ICLR 2015 (arXiv 1412.6980).
    """
    extra = task.extra_optimizers()
    theirs = {id(p) for optimizer in extra for group in optimizer.param_groups for p in group["params"]}
    trained = [p for p in task.parameters() if p.requires_grad and id(p) not in theirs]
    fused = all(p.device.type in FUSED_DEVICES for p in trained)
    return [torch.optim.Adam(trained, lr=lr, fused=fused), *extra]
