"""HLFD and its ablations without hierarchy or without unified stages.

Rethinking Intermediate Layers Design in Knowledge Distillation for Kidney and Liver Tumor Segmentation,
ISBI 2024 (arXiv 2311.16700).
"""

from __future__ import annotations

from collections.abc import Sequence

from distillation.links import Link, LinkedDistillation
from networks.contract import Channels
from utils.errors import UserError

HLFD_PMD = (
    Link(("d5", "d4", "d3"), ("d5",), weight=0.5, at_student=True),
    *(Link(("logits",), (stage,), weight=0.5) for stage in ("d4", "d3", "d2")),
)
HLFD_IMD = (
    Link(("e2", "e3", "e4"), ("e1",), weight=0.5, at_student=True),
    *(Link(("e5",), (stage,), weight=0.5) for stage in ("e2", "e3", "e4")),
)
HLFD_TERMS = (*(f"pmd_{link.name}" for link in HLFD_PMD), *(f"imd_{link.name}" for link in HLFD_IMD))

LAST_TO_SINGLE_PMD = [Link(("logits",), (stage,)) for stage in ("logits", "d4", "d2")]
LAST_TO_SINGLE_IMD = [Link(("e5",), (stage,)) for stage in ("e5", "e2", "e4")]
LAST_TO_UNIFIED_PMD = [Link(("logits",), stages) for stages in (("logits",), ("d5", "d4", "d3", "d2"))]
LAST_TO_UNIFIED_IMD = [Link(("e5",), stages) for stages in (("e5",), ("e1", "e2", "e3", "e4"))]


def hlfd(
    student: Channels,
    teacher: Channels,
    alpha: float = 0.1,
    beta: float = 0.9,
    temperature: float = 4.0,
    terms: Sequence[str] = HLFD_TERMS,
) -> LinkedDistillation:
    """HLFD: the teacher's middle stages to the student's first, its last to the student's middle ones.

    terms: those to keep, of `HLFD_TERMS`; UserError for any other.
    """
    for term in terms:
        if term not in HLFD_TERMS:
            raise UserError(f"hlfd has no term {term!r}: choose from {', '.join(HLFD_TERMS)}")
    pmd = [link for link in HLFD_PMD if f"pmd_{link.name}" in terms]
    imd = [link for link in HLFD_IMD if f"imd_{link.name}" in terms]
    return LinkedDistillation(student, teacher, pmd, imd, alpha, beta, temperature)


def hlfd_paper(student: Channels, teacher: Channels) -> LinkedDistillation:
    """HLFD at the paper's weights, whatever the defaults of `hlfd` may come to be."""
    return hlfd(student, teacher, alpha=0.1, beta=0.9, temperature=4.0)


def hifd(
    student: Channels, teacher: Channels, alpha: float = 0.1, beta: float = 0.9, temperature: float = 4.0
) -> LinkedDistillation:
    """HLFD's ablation without unified stages: the teacher's last maps to single ones (`indv_feedback`)."""
    return LinkedDistillation(student, teacher, LAST_TO_SINGLE_PMD, LAST_TO_SINGLE_IMD, alpha, beta, temperature)


def ifd(
    student: Channels, teacher: Channels, alpha: float = 0.1, beta: float = 0.9, temperature: float = 4.0
) -> LinkedDistillation:
    """HLFD's ablation without hierarchy: the teacher's last maps to all others as one (`cat_feedback_ours`)."""
    return LinkedDistillation(student, teacher, LAST_TO_UNIFIED_PMD, LAST_TO_UNIFIED_IMD, alpha, beta, temperature)
