"""How long a run trains, how often it validates, and its learning rate, all in steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.options import TrainingOptions

LAST_LR = 1e-6  # as published


@dataclass(frozen=True)
class Schedule:
    """steps: of the optimiser; val_every: steps from one validation to the next, the last step has one in any case.

    patience: stop after this many validations without a better score; 0 never stops early.
    """

    steps: int
    val_every: int
    lr: float
    patience: int = 0

    @staticmethod
    def from_options(options: TrainingOptions, steps_per_epoch: int) -> Schedule:
        """The one place where epochs become steps."""
        if options.steps is None:
            steps, val_every = options.epochs * steps_per_epoch, (options.val_every or 1) * steps_per_epoch
        else:
            steps, val_every = options.steps, options.val_every or math.ceil(options.steps / 4)
        return Schedule(steps, val_every, options.lr, options.patience)

    def lr_at(self, step: int) -> float:
        """The learning rate after `step` steps: half a cosine from `lr` to 1e-6.

        I. Loshchilov, F. Hutter: SGDR, ICLR 2017 (arXiv 1608.03983), without restarts.
        """
        last = min(LAST_LR, self.lr)
        return last + (self.lr - last) * (1 + math.cos(math.pi * (step / self.steps))) / 2

    def validates_after(self, step: int) -> bool:
        return step % self.val_every == 0 or step == self.steps
