"""What a forward pass changes of a task besides its result: running statistics, memories, random numbers."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from distillation.task import TrainingTask


class Snapshot:
    """A copy of these, to put back; its memory is taken once and written anew each time."""

    def __init__(self, task: TrainingTask, device: torch.device) -> None:
        self.task, self.device = task, device
        self._keepers = [m for m in task.modules() if type(m).get_extra_state is not nn.Module.get_extra_state]
        self._buffers: dict[str, Tensor] = {}

    @torch.no_grad()
    def take(self) -> None:
        for name, value in self.task.named_buffers():
            if name in self._buffers:
                self._buffers[name].copy_(value)
            else:
                self._buffers[name] = value.clone()
        self._extra_states = [deepcopy(module.get_extra_state()) for module in self._keepers]
        self._random = torch.get_rng_state()
        self._cuda_random = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None

    @torch.no_grad()
    def put_back(self) -> None:
        for name, value in self.task.named_buffers():
            value.copy_(self._buffers[name])
        for module, state in zip(self._keepers, self._extra_states, strict=True):
            module.set_extra_state(state)
        torch.set_rng_state(self._random)
        if self._cuda_random is not None:
            torch.cuda.set_rng_state(self._cuda_random, self.device)
