"""Methods that compare stages of the same level: the baselines of the HLFD paper (arXiv 2311.16700)."""

from __future__ import annotations

from functools import partial

from distillation.links import LinkedDistillation, same_level
from networks.contract import Channels

skd = partial(LinkedDistillation, pmd=same_level("logits"), imd=same_level("e5"))
"""Only the last maps: the logits and e5 (`wo_feedback`)."""

deep = partial(
    LinkedDistillation,
    pmd=same_level("logits", "d5", "d4", "d3", "d2"),
    imd=same_level("e1", "e2", "e3", "e4", "e5"),
)
"""Every stage to its own level (`deep_kd`)."""


def at(student: Channels, teacher: Channels) -> LinkedDistillation:
    """Attention transfer at e5 (`attn_kd`). A term alone needs no beta: its weight is 1, or that after `at:`."""
    return LinkedDistillation(student, teacher, imd=same_level("e5"), beta=1.0)
