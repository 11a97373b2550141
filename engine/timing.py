"""What pieces of work cost, taken by turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter
from typing import NamedTuple

import torch


class Cost(NamedTuple):
    """Of each repeat: seconds, and the most GB of GPU memory beyond what was there before (0 without a GPU)."""

    seconds: list[float]
    gigabytes: list[float]

    @property
    def median(self) -> float:
        """Seconds."""
        return median(self.seconds)


def measure_in_turns(steps: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Cost]:
    """The cost of each step, by name; one untimed run of each comes first.

    The steps take turns, so that a busy machine slows all of them alike. Each waits for its accelerator itself.
    """
    on_gpu = torch.cuda.is_initialized()
    costs = {name: Cost([], []) for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            resident = torch.cuda.memory_allocated() if on_gpu else 0
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            start = perf_counter()
            step()
            if turn:
                costs[name].seconds.append(perf_counter() - start)
                costs[name].gigabytes.append((torch.cuda.max_memory_allocated() - resident) / 1e9 if on_gpu else 0.0)
    return costs
