"""Methods that are a table of links from teacher stages to student stages.

Two parts, after HLFD: PMD compares what is predicted (decoder stages and logits, KL over channels), IMD what
is looked at (encoder stages, attention maps).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distillation.distances import attention_distance, channel_kl
from distillation.method import Method, added, times
from distillation.stages import adapter, gather, width
from networks.contract import Channels, Features, resize
from utils.batch import Batch


class Link(NamedTuple):
    """Teacher stages -> student stages, each "e1".."e5", "d5".."d2" or "logits".

    Several are concatenated at the size of the smallest. The student's map is resized to the teacher's, or,
    with `at_student`, the teacher's to the student's.
    """

    teacher: tuple[str, ...]
    student: tuple[str, ...]
    weight: float = 1.0
    at_student: bool = False

    @property
    def name(self) -> str:
        return self.student[0] if len(self.teacher) == len(self.student) == 1 else "unified"


def same_level(*stages: str) -> list[Link]:
    """Each stage to the stage of the same name."""
    return [Link((stage,), (stage,)) for stage in stages]


class LinkSum(Method):
    """alpha times the sum over the PMD links plus beta times the sum over the IMD links."""

    prediction_name = "KL"
    attention_name = "AT"

    def __init__(self, pmd: Sequence[Link], imd: Sequence[Link], alpha: float, beta: float, temperature: float) -> None:
        super().__init__()
        self.pmd, self.imd = tuple(pmd), tuple(imd)
        self.alpha, self.beta, self.temperature = alpha, beta, temperature

    def prediction_distance(self, link: Link, student: Features, teacher: Features) -> Tensor:
        """The unweighted distance of one PMD link."""
        raise NotImplementedError

    def attention_distance(self, link: Link, student: Features, teacher: Features) -> Tensor:
        """The unweighted distance of one IMD link."""
        raise NotImplementedError

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        terms = {}
        for link in self.pmd:
            distance = self.prediction_distance(link, student, teacher)
            terms[f"pmd_{link.name}"] = self.alpha * link.weight * distance
        for link in self.imd:
            distance = self.attention_distance(link, student, teacher)
            terms[f"imd_{link.name}"] = self.beta * link.weight * distance
        return terms

    def equation(self) -> str:
        parts = []
        for weight, distance, links in (
            (self.alpha, self.prediction_name, self.pmd),
            (self.beta, self.attention_name, self.imd),
        ):
            terms = [times(link.weight, f"{distance}({_arrow(link)})") for link in links]
            if terms:
                parts.append(times(weight, added(terms)))
        return " + ".join(parts)


def _arrow(link: Link) -> str:
    sides = []
    for letter, stages in (("t", link.teacher), ("s", link.student)):
        joined = ",".join(f"{letter}_{stage}" for stage in stages)
        sides.append(f"cat({joined})" if len(stages) > 1 else joined)
    return " -> ".join(sides)


class LinkedDistillation(LinkSum):
    """`LinkSum` with a trained 1x1 convolution in each PMD link whose channel counts differ.

    These adapters work on the student's side: a trained map of the target could collapse. They come before
    the resize, which gives the same up to rounding and is cheaper.
    """

    def __init__(
        self,
        student: Channels,
        teacher: Channels,
        pmd: Sequence[Link] = (),
        imd: Sequence[Link] = (),
        alpha: float = 0.1,
        beta: float = 0.9,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(pmd, imd, alpha, beta, temperature)
        self.adapters = nn.ModuleDict(
            {link.name: adapter(width(student, link.student), width(teacher, link.teacher)) for link in pmd}
        )

    def prediction_distance(self, link: Link, student: Features, teacher: Features) -> Tensor:
        # Few channels: resizing them is three times as slow in the networks' channels_last layout.
        s = self.adapters[link.name](gather(student, link.student)).contiguous()
        t = gather(teacher, link.teacher)
        size = common_size(link, s, t)
        return channel_kl(resize(s, size), resize(t, size), self.temperature)

    def attention_distance(self, link: Link, student: Features, teacher: Features) -> Tensor:
        s, t = gather(student, link.student), gather(teacher, link.teacher)
        return attention_distance(s, t, common_size(link, s, t))


def common_size(link: Link, student: Tensor, teacher: Tensor) -> torch.Size:
    """(H, W) at which a link compares these two maps."""
    return (student if link.at_student else teacher).shape[2:]
