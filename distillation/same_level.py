"""Methods that compare stages of the same level: the baselines of the HLFD paper.

V. Gorade, S. Mittal, D. Jha, U. Bagci: Rethinking Intermediate Layers Design in Knowledge Distillation for Kidney
and Liver Tumor Segmentation, ISBI 2024 (arXiv 2311.16700). KL and attention are those of `distillation.hierarchical`,
alpha, beta and T, too, and every term has a weight of 1.
"""

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
    """The HLFD paper's plain baseline: only the last maps, the logits and e5 (`wo_feedback`).

    alpha KL(t_logits -> s_logits) + beta attention(t_e5 -> s_e5).
    """
    return LinkedDistillation(student, teacher, LAST_PMD, LAST_IMD, alpha, beta, temperature)


def deep(
    student: Channels, teacher: Channels, alpha: float = 0.1, beta: float = 0.9, temperature: float = 4.0
) -> LinkedDistillation:
    """The HLFD paper's deep baseline: every stage to its own level (`deep_kd`).

    alpha times the sum of KL over the logits and d5..d2 + beta times the sum of attention over e1..e5.
    """
    return LinkedDistillation(student, teacher, EVERY_PMD, EVERY_IMD, alpha, beta, temperature)


def at(
    student: Channels, teacher: Channels, layers: Sequence[str] = ("e5",), weight: float = 1.0
) -> LinkedDistillation:
    """Attention transfer as in the HLFD paper: exponent 4, e5 alone (`attn_kd`); its own authors' is `at_paper`.

    weight times the sum of attention(t -> s) over the layers; S. Zagoruyko, N. Komodakis: Paying More Attention to
    Attention, ICLR 2017 (arXiv 1612.03928).
    """
    return LinkedDistillation(student, teacher, imd=same_level(*check_layers(layers)), beta=weight)
