"""Whether a training is still one: losses and gradients that are finite, and predictions that find something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from math import inf, isfinite

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from distillation.task import TrainingTask
from engine.device import Precision
from utils.errors import UserError
from utils.progress import print_note

EMPTY_VALIDATIONS = 3
"""Without a single foreground voxel, one after another, until the user is told."""
SMALLEST_SCALE = 1.0
"""Of fp16's gradients; those that are not finite even so are too large, and not by their scale."""


class NotFinite(UserError):
    """A step that was not taken: what is not finite, and on which cases. Its task is as it was before the step."""


class Health:
    """Watches over the steps and validations of one training."""

    def __init__(self, task: TrainingTask, precision: Precision) -> None:
        self.task, self.precision = task, precision
        self.empty_validations = 0
        self._keepers = [m for m in task.modules() if type(m).get_extra_state is not nn.Module.get_extra_state]
        self._buffers: dict[str, Tensor] = {}

    @torch.no_grad()
    def remember(self) -> None:
        """Keep what a forward pass changes, which are running statistics, memories, random numbers."""
        for name, value in self.task.named_buffers():
            if name in self._buffers:
                self._buffers[name].copy_(value)
            else:
                self._buffers[name] = value.clone()
        self._extra_states = [deepcopy(module.get_extra_state()) for module in self._keepers]
        device = self.precision.device
        self._random = torch.get_rng_state()
        self._cuda_random = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def check(self, terms: Mapping[str, Tensor], cases: Sequence[str]) -> bool:
        """After the backward pass, before any update: whether fp16's gradients overflowed, so that the scaler skips it.

        terms: of the loss; cases: of the batch. `NotFinite`, and all is as before the step, if it would spoil the
        network: its loss, its gradients or the network's running statistics are not finite.
        """
        gradients = [parameter.grad for parameter in self.task.parameters() if parameter.grad is not None]
        statistics = [value for value in self.task.network.buffers() if value.is_floating_point()]
        # As one tensor, for a GPU is waited for. Squares overflow beyond 1e19, as they would in Adam; the largest value
        # would be the plainer norm, and takes five times as long.
        values = [terms["loss"].detach(), get_total_norm(gradients), get_total_norm(statistics, inf)]
        device = self.precision.device
        loss, gradient, statistic = torch.stack([value.to(device, torch.float32) for value in values]).tolist()
        scaler = self.precision.scaler
        overflowed = scaler.is_enabled() and not isfinite(gradient) and scaler.get_scale() >= SMALLEST_SCALE
        found = {"loss": loss, "gradient": 0.0 if overflowed else gradient, "running statistics": statistic}
        for name, value in found.items():
            if not isfinite(value):
                self.restore()
                parts = ", ".join(f"{term} {each.item():.4g}" for term, each in terms.items())
                raise NotFinite(f"{name} not finite ({parts}) on slices of {', '.join(sorted(set(cases)))}")
        return overflowed

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what `remember` kept."""
        for name, value in self.task.named_buffers():
            value.copy_(self._buffers[name])
        for module, state in zip(self._keepers, self._extra_states, strict=True):
            module.set_extra_state(state)
        torch.set_rng_state(self._random)
        if self._cuda_random is not None:
            torch.cuda.set_rng_state(self._cuda_random, self.precision.device)

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
