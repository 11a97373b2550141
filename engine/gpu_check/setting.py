"""What the checks and timings run on, and what one of them says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from datasets.slices.slice_folder import SliceFolder
from engine.options import Cache, DataOptions, DistillationOptions, RunOptions, TrainingOptions

Outcome = Literal["passed", "failed", "skipped", "measured"]
Amp = Literal["off", "bf16", "fp16"]
NO_GPU = "needs a CUDA device"
BATCHES = {8: 2, 16: 3, 64: 4}
"""Slices in the batches that are timed, and how many there are in the short form."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    outcome: Outcome
    found: str
    figures: dict[str, float]

    @staticmethod
    def check(name: str, right: bool, found: str, **figures: float) -> Row:
        return Row(name, "passed" if right else "failed", found, figures)

    @staticmethod
    def skipped(name: str, why: str = NO_GPU) -> Row:
        return Row(name, "skipped", why, {})

    @staticmethod
    def measured(name: str, found: str, **figures: float) -> Row:
        return Row(name, "measured", found, figures)


@dataclass(frozen=True)
class Setting:
    """short: sizes so tiny that a CPU runs everything in minutes; slices: of noise; scratch: a folder for runs."""

    device: torch.device
    short: bool
    slices: SliceFolder
    scratch: Path

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def size(self) -> int:
        """Pixels a side that networks see."""
        return 32 if self.short else 384

    def batch(self, size: int) -> int:
        """Of `BATCHES`."""
        return BATCHES[size] if self.short else size

    @property
    def amps(self) -> tuple[Amp, ...]:
        """Mixed precisions that the device trains in."""
        return ("bf16", "fp16") if self.on_gpu else ("bf16",)

    @property
    def amp(self) -> Amp:
        """The precision that the timings are of."""
        return "bf16" if self.on_gpu else "off"

    def run(
        self,
        name: str,
        model: str,
        amp: Amp,
        batch_size: int = 2,
        distillation: DistillationOptions | None = None,
        augment: Literal["none", "mild", "paper", "strong"] = "mild",
        cache: Cache = "none",
        **training: Any,
    ) -> RunOptions:
        """A training on the slices; name: of its folder in the scratch folder."""
        data = DataOptions("msd", "all", self.slices.folder, size=self.size, crop=0, augment=augment)
        options = TrainingOptions(
            checkpoint_path=self.scratch / name,
            batch_size=batch_size,
            amp=amp,
            cache=cache,
            device=str(self.device),
            **{"steps": 100, "lr": 1e-4, **training},
        )
        return RunOptions(model, data, options, distillation)
