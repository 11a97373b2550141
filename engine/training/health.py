"""Whether a training is still one: losses and gradients that are finite, and predictions that find something."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import inf, isfinite
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from distillation.task import TrainingTask
from engine.device import Precision
from engine.training.snapshot import Snapshot
from utils.errors import UserError
from utils.progress import print_note
from utils.transfer import fetched

EMPTY_VALIDATIONS = 3
"""Without a single foreground voxel, one after another, until the user is told."""
SMALLEST_SCALE = 1.0
"""Of fp16's gradients; those that are not finite even so are too large, and not by their scale."""


class NotFinite(UserError):
    """A step that was not taken: what is not finite, and on which cases. Its task is as it was before the step."""


class Seen(NamedTuple):
    """What was found in a step: values gives loss, norm of the gradients, running statistics, and their scale."""

    values: Callable[[], Tensor]
    scale: Tensor
    terms: Mapping[str, Tensor]
    cases: Sequence[str]


class Health:
    """Watches over the steps and validations of one training.

    behind: how many steps may be under way when one is judged. With 0 the host waits for every step before weights
    change. A GPU would have nothing to do meanwhile: with 1 it judges a step when the next one has been handed over,
    and the update of a bad one is made to change nothing (`skip_if`).
    """

    def __init__(self, task: TrainingTask, precision: Precision, behind: int = 0) -> None:
        self.task, self.precision, self.behind = task, precision, behind
        self.empty_validations = 0
        self._snapshots = deque(Snapshot(task, precision.device) for _ in range(1 + behind))
        self._seen: deque[Seen] = deque()

    def remember(self) -> None:
        """Keep what a forward pass changes."""
        self._snapshots.rotate()
        self._snapshots[0].take()

    def restore(self) -> None:
        """Put back what `remember` kept last."""
        self._snapshots[0].put_back()

    @torch.no_grad()
    def look(self, terms: Mapping[str, Tensor], cases: Sequence[str]) -> Tensor:
        """After the backward pass, before any update: 1 where it has to be skipped, else 0, on the device.

        terms: of the loss; cases: of the batch. A step would spoil the network if its loss, its gradients or the
        network's running statistics are not finite.
        """
        device, scaler = self.precision.device, self.precision.scaler
        gradients = [parameter.grad for parameter in self.task.parameters() if parameter.grad is not None]
        statistics = [value for value in self.task.network.buffers() if value.is_floating_point()]
        scale = scaler.scale(torch.ones((), device=device)).clone()
        # Squares overflow beyond 1e19, as they would in Adam; the largest value would be the plainer norm, and takes
        # five times as long.
        found = [terms["loss"].detach(), get_total_norm(gradients)]
        found += [get_total_norm(statistics, inf)] if statistics else []
        values = torch.stack([value.to(device, torch.float32) for value in found])
        self._seen.append(Seen(fetched(torch.cat([values, scale[None]])), scale, terms, cases))
        return (~values.isfinite().all()).float()

    def judge(self, behind: int | None = None) -> int:
        """How many of the steps not judged so far fp16 skipped, for their gradients overflowed; all but the last few.

        behind: how many these are. `NotFinite` at the first that would have spoilt the network, and all is as before
        it, if no later one has changed weights.
        """
        overflows = 0
        while len(self._seen) > (self.behind if behind is None else behind):
            overflows += self._judge(self._seen.popleft())
        return overflows

    def _judge(self, seen: Seen) -> bool:
        loss, gradient, *statistics, scale = seen.values().tolist()
        overflowed = self.precision.scaler.is_enabled() and not isfinite(gradient) and scale >= SMALLEST_SCALE
        found = {"loss": loss, "gradient": 0.0 if overflowed else gradient, "running statistics": sum(statistics)}
        for name, value in found.items():
            if not isfinite(value):
                self._take_back(seen)
                parts = ", ".join(f"{term} {each.item():.4g}" for term, each in seen.terms.items())
                raise NotFinite(f"{name} not finite ({parts}) on slices of {', '.join(sorted(set(seen.cases)))}")
        return overflowed

    def _take_back(self, seen: Seen) -> None:
        """All steps from this one on."""
        self._snapshots[len(self._seen)].put_back()
        self._seen.clear()
        if self.behind and self.precision.scaler.is_enabled():
            self.precision.scaler.update(seen.scale)

    def validated(self, found: bool) -> None:
        """Say so, once, when several validations in a row found nothing; found: any foreground voxel in this one."""
        if self.empty_validations < EMPTY_VALIDATIONS:
            self.empty_validations = 0 if found else self.empty_validations + 1
            if self.empty_validations == EMPTY_VALIDATIONS:
                print_note(
                    f"{EMPTY_VALIDATIONS} validations in a row found nothing but background; what usually helps: "
                    "a lower --lr, --init imagenet, more steps, slices cut with fewer --negatives, and a --window and "
                    "--crop that show the target"
                )


def skip_if(optimizer: Optimizer, bad: Tensor, scaler: torch.amp.GradScaler) -> None:
    """Have a fused optimiser's next update change nothing where `bad` is 1, without the host knowing.

    By the attribute through which `GradScaler` tells it of gradients that have overflowed. Where fp16 scales them, it
    looks for these itself, and finds one.
    """
    if not scaler.is_enabled():
        optimizer.found_inf = bad  # type: ignore[attr-defined]
        return
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    if (gradient := next((p.grad for p in parameters if p.grad is not None), None)) is not None:
        gradient.add_(torch.where(bad > 0, torch.nan, 0.0).to(gradient.dtype))
