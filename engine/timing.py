"""What pieces of work cost, taken by turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter
from typing import NamedTuple

import torch

CPU = torch.device("cpu")


class Cost(NamedTuple):
    """Of each repeat: seconds, and the most GB of GPU memory beyond what was there before (0 without a GPU)."""

    seconds: list[float]
    gigabytes: list[float]

    @property
    def median(self) -> float:
        """Seconds."""
        return median(self.seconds)


def measure_in_turns(
    steps: Mapping[str, Callable[[], object]], repeats: int, device: torch.device = CPU
) -> dict[str, Cost]:
    """The cost of each step on the device, by name; one untimed run of each comes first.

    The steps take turns, so that a busy machine slows all of them alike.
    """
    on_gpu = device.type == "cuda"
    costs = {name: Cost([], []) for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            resident = torch.cuda.memory_allocated(device) if on_gpu else 0
            if on_gpu:
                torch.cuda.reset_peak_memory_stats(device)
            start = perf_counter()
            step()
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            if turn:
                costs[name].seconds.append(perf_counter() - start)
                costs[name].gigabytes.append(
                    (torch.cuda.max_memory_allocated(device) - resident) / 1e9 if on_gpu else 0.0
                )
    return costs
