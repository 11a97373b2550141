"""Weights that give every distillation term the same gradient on the student, whatever its scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distillation.gradients import gradient_norms

EVERY = 25
"""Steps from one measurement to the next: each costs a backward pass for every term."""
MEMORY = 0.7
"""The share of its old weight that a term keeps at a measurement."""
LARGEST = 1000.0
"""Upper bound of a weight, for terms that are almost 0."""
FLOOR = 1e-4
"""A gradient's norm below this share of the largest one is rounding noise, such as that of terms that two classes leave
without a gradient, or of a term that is satisfied."""


class GradientBalance(nn.Module):
    """Scales each term so that its gradient's norm on the student is share / n of the segmentation loss's.

    n is the number of terms that reach the student by more than `FLOOR`; the others, such as a critic's own, keep the
    weights of their method, which are replaced for the rest. Measured every `EVERY` steps and smoothed. After
    Z. Chen, V. Badrinarayanan, C.-Y. Lee, A. Rabinovich: GradNorm, ICML 2018 (arXiv 1711.02257), whose weights are
    trained, not set.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.steps = 0
        self.scales: dict[str, float] = {}

    def forward(
        self, segmentation: Mapping[str, Tensor], terms: dict[str, Tensor], student: Sequence[nn.Parameter]
    ) -> dict[str, Tensor]:
        """The weighted terms; outside of training by the last measured weights."""
        if self.training and torch.is_grad_enabled():
            if self.steps % EVERY == 0:
                self._measure(segmentation, terms, student)
            self.steps += 1
        return {term: self.scales.get(term, 1.0) * value for term, value in terms.items()}

    def _measure(
        self, segmentation: Mapping[str, Tensor], terms: dict[str, Tensor], student: Sequence[nn.Parameter]
    ) -> None:
        losses = {"segmentation": torch.stack(list(segmentation.values())).sum(), **terms}
        norms = {term: float(group["all"]) for term, group in gradient_norms(losses, {"all": student}).items()}
        if not all(map(math.isfinite, norms.values())):
            return  # Half precision overflows now and then, and a smoothed weight would stay infinite.
        least = FLOOR * max(norms.values())
        total = self.share * norms.pop("segmentation")
        reaching = {term: norm for term, norm in norms.items() if norm > least}
        scales = {}
        for term, norm in reaching.items():
            scale = min(total / len(reaching) / norm, LARGEST)
            scales[term] = MEMORY * self.scales.get(term, scale) + (1 - MEMORY) * scale
        self.scales = scales

    def measure_next(self) -> None:
        """Measure in the next step, whenever the last time was."""
        self.steps = 0

    def get_extra_state(self) -> dict[str, Any]:
        return {"steps": self.steps, "scales": dict(self.scales)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.steps, self.scales = state["steps"], dict(state["scales"])
