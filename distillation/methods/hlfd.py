"""HLFD, its ablations and its baselines: tables of links from teacher stages to student stages.

V. Gorade, S. Mittal, D. Jha, U. Bagci: Rethinking Intermediate Layers Design in Knowledge Distillation for Kidney
and Liver Tumor Segmentation, ISBI 2024 (arXiv 2311.16700): segmentation loss + alpha PMD + beta IMD, with alpha 0.1,
beta 0.9 and T = 4. PMD compares what is predicted, IMD where the networks look:

    PMD link   T^2 KL(softmax(t / T) || softmax(s / T)) over channels, mean over batch and pixels (`channel_kl`)
    IMD link   ||n(A(s)) - n(A(t))||^2, A = mean over channels of x^4, n = L2 norm over the pixels, mean over the
               batch (`attention_distance`)

The segmentation loss is the task's. Where the two maps of a PMD link differ in channels, a trained 1x1 convolution
adapts the student's: a trained map of the target could collapse. It comes before the resize, which gives the same up
to rounding and is cheaper.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from distillation.distances import attention_distance, channel_kl
from distillation.method import Method, join_terms, weighted
from distillation.stages import adapter
from networks.contract import Channels, Features, resize
from utils.batch import Batch
from utils.numbers import NonNegative, Positive


class Link(NamedTuple):
    """Teacher stages -> student stages; several, joined by `+`, are concatenated at the size of the smallest.

    The student's map is resized to the teacher's, or, with `at_student`, the teacher's to the student's.
    """

    part: str
    teacher: str
    student: str
    weight: float = 1.0
    at_student: bool = False

    @property
    def name(self) -> str:
        return "unified" if "+" in self.teacher + self.student else self.student

    @property
    def term(self) -> str:
        return f"{self.part}_{self.name}"


VARIANTS: dict[str, tuple[Link, ...]] = {
    "hlfd": (
        Link("pmd", "d5+d4+d3", "d5", weight=0.5, at_student=True),
        Link("pmd", "logits", "d4", weight=0.5),
        Link("pmd", "logits", "d3", weight=0.5),
        Link("pmd", "logits", "d2", weight=0.5),
        Link("imd", "e2+e3+e4", "e1", weight=0.5, at_student=True),
        Link("imd", "e5", "e2", weight=0.5),
        Link("imd", "e5", "e3", weight=0.5),
        Link("imd", "e5", "e4", weight=0.5),
    ),
    "hifd": (
        *(Link("pmd", "logits", stage) for stage in ("logits", "d4", "d2")),
        *(Link("imd", "e5", stage) for stage in ("e5", "e2", "e4")),
    ),
    "ifd": (
        *(Link("pmd", "logits", stages) for stages in ("logits", "d5+d4+d3+d2")),
        *(Link("imd", "e5", stages) for stages in ("e5", "e1+e2+e3+e4")),
    ),
    "deep": (
        *(Link("pmd", stage, stage) for stage in ("logits", "d5", "d4", "d3", "d2")),
        *(Link("imd", stage, stage) for stage in ("e1", "e2", "e3", "e4", "e5")),
    ),
    "skd": (Link("pmd", "logits", "logits"), Link("imd", "e5", "e5")),
}
TERMS = tuple(link.term for link in VARIANTS["hlfd"])


class LinkedDistillation(Method):
    """alpha times the sum of a variant's PMD links plus beta times the sum of its IMD links."""

    alpha: NonNegative = 0.1
    beta: NonNegative = 0.9
    temperature: Positive = 4.0
    variant: ClassVar[str]
    terms: tuple[str, ...] | None = None
    """The terms to keep; None keeps all."""

    def __init__(self, student: Channels, teacher: Channels, **options: Any) -> None:
        super().__init__(student, teacher, **options)
        links = VARIANTS[self.variant]
        self.links = [link for link in links if self.terms is None or link.term in self.terms]
        self.adapters = nn.ModuleDict(
            {
                link.name: adapter(width(student, link.student), width(teacher, link.teacher))
                for link in self.links
                if link.part == "pmd"
            }
        )

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        terms = {}
        for link in self.links:
            s, t = gather(student, link.student), gather(teacher, link.teacher)
            if link.part == "pmd":
                # Few channels: resizing them is three times as slow in the networks' channels_last layout.
                s = self.adapters[link.name](s).contiguous()
                size = compared_size(link, s, t)
                distance = channel_kl(resize(s, size), resize(t, size), self.temperature)
                terms[link.term] = self.alpha * link.weight * distance
            else:
                distance = attention_distance(s, t, compared_size(link, s, t))
                terms[link.term] = self.beta * link.weight * distance
        return terms

    def equation(self) -> str:
        return links_equation(self.links, pmd=(self.alpha, "KL"), imd=(self.beta, "AT"))


def read_terms(text: str) -> tuple[str, ...]:
    """An argparse type: terms of HLFD, joined by `+`."""
    terms = tuple(text.split("+"))
    for term in terms:
        if term not in TERMS:
            raise argparse.ArgumentTypeError(f"there is no term {term!r}: choose from {', '.join(TERMS)}")
    return terms


class HLFD(LinkedDistillation):
    """HLFD: the teacher's middle stages to the student's first, its last to the student's middle ones.

    V. Gorade et al., ISBI 2024 (arXiv 2311.16700): alpha PMD + beta IMD, the table `VARIANTS`. `terms`: those to keep.
    """

    variant = "hlfd"
    terms: Annotated[tuple[str, ...], read_terms] = TERMS


class HIFD(LinkedDistillation):
    """HLFD's ablation without unified stages: the teacher's last maps to single ones (`indv_feedback`).

    Of the same paper: alpha KL(t_logits -> each of s_logits, s_d4, s_d2) + beta attention(t_e5 -> each of s_e5, s_e2,
    s_e4), with a weight of 1 for every term.
    """

    variant = "hifd"


class IFD(LinkedDistillation):
    """HLFD's ablation without hierarchy: the teacher's last maps to all others as one (`cat_feedback_ours`).

    Of the same paper: alpha KL(t_logits -> s_logits, and -> s_d5..s_d2 as one) + beta attention(t_e5 -> s_e5, and ->
    s_e1..s_e4 as one), with a weight of 1 for every term.
    """

    variant = "ifd"


class Deep(LinkedDistillation):
    """The HLFD paper's deep baseline: every stage to its own level (`deep_kd`).

    alpha times the sum of KL over the logits and d5..d2 + beta times the sum of attention over e1..e5.
    """

    variant = "deep"


class SKD(LinkedDistillation):
    """The HLFD paper's plain baseline: only the last maps, the logits and e5 (`wo_feedback`).

    alpha KL(t_logits -> s_logits) + beta attention(t_e5 -> s_e5).
    """

    variant = "skd"


def gather(features: Features, stages: str) -> Tensor:
    """The map of a link's stages; several as one, their channels side by side, at the size of the smallest."""
    maps = [features.stage(name) for name in stages.split("+")]
    if len(maps) == 1:
        return maps[0]
    smallest = min((m.shape[2:] for m in maps), key=lambda size: size[0] * size[1])
    return torch.cat([resize(m, smallest) for m in maps], dim=1)


def width(channels: Channels, stages: str) -> int:
    """How many channels a link's stages have together."""
    return sum(channels.stage(name).channels for name in stages.split("+"))


def compared_size(link: Link, student: Tensor, teacher: Tensor) -> torch.Size:
    """(H, W) at which a link compares these two maps."""
    return (student if link.at_student else teacher).shape[2:]


def links_equation(links: Sequence[Link], pmd: tuple[float, str], imd: tuple[float, str]) -> str:
    """The weighted sum of links as text; pmd, imd: the weight of each part, and its distance's name."""
    parts = []
    for part, (weight, distance) in (("pmd", pmd), ("imd", imd)):
        terms = [weighted(link.weight, f"{distance}({_arrow(link)})") for link in links if link.part == part]
        if terms:
            parts.append(weighted(weight, join_terms(terms)))
    return " + ".join(parts)


def _arrow(link: Link) -> str:
    sides = []
    for letter, stages in (("t", link.teacher), ("s", link.student)):
        joined = ",".join(f"{letter}_{stage}" for stage in stages.split("+"))
        sides.append(f"cat({joined})" if "+" in stages else joined)
    return " -> ".join(sides)
