"""DIST."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from distillation.method import Method, weighted
from distillation.standardise import no_gradient, standardise
from networks.contract import Features
from utils.batch import Batch
from utils.numbers import NonNegative, Positive


class DIST(Method):
    """DIST, correlation in place of equality: between classes in a pixel, and between pixels in a class.

    T. Huang, S. You, F. Wang, C. Qian, C. Xu: Knowledge Distillation from A Stronger Teacher, NeurIPS 2022
    (arXiv 2205.10536): T^2 (beta (1 - inter) + gamma (1 - intra)), with beta, gamma and T all 1 as in the
    authors' segmentation code. inter is Pearson's correlation of a pixel's probabilities, mean over the pixels;
    intra that of a class's probabilities at all pixels of the batch, mean over the classes. What does not vary
    has correlation 0. Gradients are bounded (see `distillation.standardise`).

    Two probabilities correlate with 1 or -1: with two classes the inter-class term is twice the share of pixels
    where student and teacher predict different classes, and has no gradient; the other term does the teaching.
    """

    needs = "probabilities"
    beta: NonNegative = 1.0
    gamma: NonNegative = 1.0
    temperature: Positive = 1.0
    target: ClassVar[str] = "t_logits"
    """What `targets` gives, in the equation."""

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        s, t = (student.logits / self.temperature).softmax(dim=1), self.targets(teacher, batch)
        inter = pearson(s, t).mean()
        intra = pearson(s.transpose(0, 1).flatten(1), t.transpose(0, 1).flatten(1)).mean()
        scale = self.temperature**2
        return {"inter": self.beta * scale * (1 - inter), "intra": self.gamma * scale * (1 - intra)}

    def targets(self, teacher: Features, batch: Batch) -> Tensor:
        """Probabilities [B, C, H, W] that the student's are to correlate with."""
        return (teacher.logits / self.temperature).softmax(dim=1)

    def equation(self) -> str:
        inter, intra = (f"(1 - {name}({self.target}, s_logits))" for name in ("inter", "intra"))
        inter_note = no_gradient(self.student_channels.classes)
        return f"{weighted(self.beta, inter)}{inter_note} + {weighted(self.gamma, intra)}"


def pearson(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's correlation along dimension 1; 0 where one of them is constant."""
    return (standardise(x) * standardise(y)).sum(dim=1)
