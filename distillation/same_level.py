"""Methods that compare stages of the same level: the baselines of the HLFD paper (arXiv 2311.16700)."""

from __future__ import annotations

from distillation.links import LinkedDistillation, same_level
from networks.contract import Channels


def skd(
    student: Channels, teacher: Channels, alpha: float = 0.1, beta: float = 0.9, temperature: float = 4.0
) -> LinkedDistillation:
    """Only the last maps: the logits and e5 (`wo_feedback`)."""
    return LinkedDistillation(
        student,
        teacher,
        same_level("logits"),
        same_level("e5"),
        alpha=alpha,
        beta=beta,
        temperature=temperature,
    )


def at(student: Channels, teacher: Channels) -> LinkedDistillation:
    """Attention transfer at e5, weight 1 (`attn_kd`)."""
    return LinkedDistillation(student, teacher, imd=same_level("e5"), beta=1.0)


def deep(
    student: Channels, teacher: Channels, alpha: float = 0.1, beta: float = 0.9, temperature: float = 4.0
) -> LinkedDistillation:
    """Every stage to its own level (`deep_kd`)."""
    return LinkedDistillation(
        student,
        teacher,
        same_level("logits", "d5", "d4", "d3", "d2"),
        same_level("e1", "e2", "e3", "e4", "e5"),
        alpha=alpha,
        beta=beta,
        temperature=temperature,
    )
