"""Methods that compare stages of the same level: the baselines of the HLFD paper (arXiv 2311.16700)."""

from __future__ import annotations

from collections.abc import Sequence

from distillation.links import LinkedDistillation, same_level
from distillation.stages import check_layers
from networks.contract import Channels

LAST_PMD, LAST_IMD = same_level("logits"), same_level("e5")
EVERY_PMD, EVERY_IMD = same_level("logits", "d5", "d4", "d3", "d2"), same_level("e1", "e2", "e3", "e4", "e5")


def skd(
    student: Channels, teacher: Channels, alpha: float = 0.1, beta: float = 0.9, temperature: float = 4.0
) -> LinkedDistillation:
    """The HLFD paper's plain baseline: only the last maps, the logits and e5 (`wo_feedback`)."""
    return LinkedDistillation(student, teacher, LAST_PMD, LAST_IMD, alpha, beta, temperature)


def deep(
    student: Channels, teacher: Channels, alpha: float = 0.1, beta: float = 0.9, temperature: float = 4.0
) -> LinkedDistillation:
    """The HLFD paper's deep baseline: every stage to its own level (`deep_kd`)."""
    return LinkedDistillation(student, teacher, EVERY_PMD, EVERY_IMD, alpha, beta, temperature)


def at(
    student: Channels, teacher: Channels, layers: Sequence[str] = ("e5",), weight: float = 1.0
) -> LinkedDistillation:
    """Attention transfer as in the HLFD paper: exponent 4, e5 alone (`attn_kd`); its own authors' is `at_paper`."""
    return LinkedDistillation(student, teacher, imd=same_level(*check_layers(layers)), beta=weight)
