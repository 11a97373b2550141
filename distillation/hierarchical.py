"""HLFD and its ablations without hierarchy or without unified stages.

V. Gorade, S. Mittal, D. Jha, U. Bagci: Rethinking Intermediate Layers Design in Knowledge Distillation for Kidney
and Liver Tumor Segmentation, ISBI 2024 (arXiv 2311.16700): segmentation loss + alpha PMD + beta IMD, with alpha 0.1,
beta 0.9 and T = 4. The segmentation loss is the task's (`segmentation_loss`); the rest is 0.5 times each of

    part                     teacher                  student                         distance
    PMD, unified             t_d5, t_d4, t_d3 as one  s_d5                            KL over channels
    PMD, one term for each   t_logits                 s_d4, s_d3, s_d2                KL over classes
    IMD, unified             t_e2, t_e3, t_e4 as one  s_e1                            attention
    IMD, one term for each   t_e5                     s_e2, s_e3, s_e4                attention

KL is `channel_kl`, T^2 KL(softmax(t / T) || softmax(s / T)), mean over batch and pixels. Attention is
`attention_distance`, ||n(A(s)) - n(A(t))||^2, A = mean over channels of x^4, n = L2 norm over the pixels, mean over the
batch. Unified stages are compared at the size of the student's, the others at the teacher's.
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

    V. Gorade et al., ISBI 2024 (arXiv 2311.16700): alpha PMD + beta IMD, the table at the top of this module.

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
    """HLFD's ablation without unified stages: the teacher's last maps to single ones (`indv_feedback`).

    Of the same paper: alpha KL(t_logits -> each of s_logits, s_d4, s_d2) + beta attention(t_e5 -> each of s_e5, s_e2,
    s_e4), with a weight of 1 for every term.
    """
    return LinkedDistillation(student, teacher, LAST_TO_SINGLE_PMD, LAST_TO_SINGLE_IMD, alpha, beta, temperature)


def ifd(
    student: Channels, teacher: Channels, alpha: float = 0.1, beta: float = 0.9, temperature: float = 4.0
) -> LinkedDistillation:
    """HLFD's ablation without hierarchy: the teacher's last maps to all others as one (`cat_feedback_ours`).

    Of the same paper: alpha KL(t_logits -> s_logits, and -> s_d5..s_d2 as one) + beta attention(t_e5 -> s_e5, and ->
    s_e1..s_e4 as one), with a weight of 1 for every term.
    """
    return LinkedDistillation(student, teacher, LAST_TO_UNIFIED_PMD, LAST_TO_UNIFIED_IMD, alpha, beta, temperature)
