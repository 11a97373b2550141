"""HLFD and its ablations without hierarchy or without unified stages.

Rethinking Intermediate Layers Design in Knowledge Distillation for Kidney and Liver Tumor Segmentation,
ISBI 2024 (arXiv 2311.16700).
"""

from __future__ import annotations

from distillation.links import Link, LinkedDistillation
from networks.contract import Channels

HLFD_PMD = (
    Link(("d5", "d4", "d3"), ("d5",), weight=0.5, at_student=True),
    *(Link(("logits",), (stage,), weight=0.5) for stage in ("d4", "d3", "d2")),
)
HLFD_IMD = (
    Link(("e2", "e3", "e4"), ("e1",), weight=0.5, at_student=True),
    *(Link(("e5",), (stage,), weight=0.5) for stage in ("e2", "e3", "e4")),
)


def hlfd(
    student: Channels, teacher: Channels, alpha: float = 0.1, beta: float = 0.9, temperature: float = 4.0
) -> LinkedDistillation:
    """The method of the paper: the teacher's deepest knowledge to every shallower stage of the student."""
    return LinkedDistillation(student, teacher, HLFD_PMD, HLFD_IMD, alpha=alpha, beta=beta, temperature=temperature)


def hifd(
    student: Channels, teacher: Channels, alpha: float = 0.1, beta: float = 0.9, temperature: float = 4.0
) -> LinkedDistillation:
    """The teacher's last maps to single stages of the student (`indv_feedback`)."""
    pmd = [Link(("logits",), (stage,)) for stage in ("logits", "d4", "d2")]
    imd = [Link(("e5",), (stage,)) for stage in ("e5", "e2", "e4")]
    return LinkedDistillation(student, teacher, pmd, imd, alpha=alpha, beta=beta, temperature=temperature)


def ifd(
    student: Channels, teacher: Channels, alpha: float = 0.1, beta: float = 0.9, temperature: float = 4.0
) -> LinkedDistillation:
    """The teacher's last maps to the student's and to all its other stages as one (`cat_feedback_ours`)."""
    pmd = [Link(("logits",), stages) for stages in (("logits",), ("d5", "d4", "d3", "d2"))]
    imd = [Link(("e5",), stages) for stages in (("e5",), ("e1", "e2", "e3", "e4"))]
    return LinkedDistillation(student, teacher, pmd, imd, alpha=alpha, beta=beta, temperature=temperature)
