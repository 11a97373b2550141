"""HLFD and its ablations without hierarchy or without unified stages.

Rethinking Intermediate Layers Design in Knowledge Distillation for Kidney and Liver Tumor Segmentation,
ISBI 2024 (arXiv 2311.16700).
"""

from __future__ import annotations

from functools import partial

from distillation.links import Link, LinkedDistillation

HLFD_PMD = (
    Link(("d5", "d4", "d3"), ("d5",), weight=0.5, at_student=True),
    *(Link(("logits",), (stage,), weight=0.5) for stage in ("d4", "d3", "d2")),
)
HLFD_IMD = (
    Link(("e2", "e3", "e4"), ("e1",), weight=0.5, at_student=True),
    *(Link(("e5",), (stage,), weight=0.5) for stage in ("e2", "e3", "e4")),
)
LAST_TO_SINGLE_PMD = [Link(("logits",), (stage,)) for stage in ("logits", "d4", "d2")]
LAST_TO_SINGLE_IMD = [Link(("e5",), (stage,)) for stage in ("e5", "e2", "e4")]
LAST_TO_UNIFIED_PMD = [Link(("logits",), stages) for stages in (("logits",), ("d5", "d4", "d3", "d2"))]
LAST_TO_UNIFIED_IMD = [Link(("e5",), stages) for stages in (("e5",), ("e1", "e2", "e3", "e4"))]

hlfd = partial(LinkedDistillation, pmd=HLFD_PMD, imd=HLFD_IMD)
"""The method of the paper: the teacher's deepest knowledge to every shallower stage of the student."""

hifd = partial(LinkedDistillation, pmd=LAST_TO_SINGLE_PMD, imd=LAST_TO_SINGLE_IMD)
"""The teacher's last maps to single stages of the student (`indv_feedback`)."""

ifd = partial(LinkedDistillation, pmd=LAST_TO_UNIFIED_PMD, imd=LAST_TO_UNIFIED_IMD)
"""The teacher's last maps to the student's and to all its other stages as one (`cat_feedback_ours`)."""
