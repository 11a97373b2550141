"""Canonical feature distillation: the last map before the classifier, by a plain distance of normalised channels."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from distillation.method import Method, weighted
from distillation.standardise import standardise
from networks.contract import Channels, Features, resize
from utils.batch import Batch
from utils.numbers import NonNegative


class Canonical(Method):
    """Canonical feature distillation: the last map before the classifier, each channel at mean 0 and variance 1.

    After M. Ali, K. A. Laube, M. R. Ganesh, L. Schott, N. Popp, T. Brox: The Surprising Effectiveness of Canonical
    Knowledge Distillation for Semantic Segmentation, 2026 (arXiv 2604.25530), where plain feature distillation, trained
    for as long, does better than methods made for segmentation; normalised after T. Liu, X. Yang, C. Chen: Normalized
    Feature Distillation for Semantic Segmentation, 2022 (arXiv 2207.05256).

        weight mean (z(p(s)) - z(t))^2 over batch, channels and pixels

    s, t: d2 of a network with a decoder, else e5. p: a trained 1x1 convolution, then resized to the teacher's map. z:
    each channel of each image at mean 0 and variance 1 over the pixels, or 0 where it is constant (gradients are
    bounded, see `distillation.standardise`). In [0, 4], whatever the size of maps and batch, and 2 for unrelated maps.
    Of either paper only the abstract was at hand: these details and the weight of 1 are ours.
    """

    weight: NonNegative = 1.0

    def __init__(self, student: Channels, teacher: Channels, **options: Any) -> None:
        super().__init__(student, teacher, **options)
        self.student_stage, self.teacher_stage = last_stage(student), last_stage(teacher)
        inputs, outputs = student.stage(self.student_stage).channels, teacher.stage(self.teacher_stage).channels
        # z takes a bias away.
        self.projector = nn.Conv2d(inputs, outputs, kernel_size=1, bias=False)

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        t = teacher.stage(self.teacher_stage)
        s = resize(self.projector(student.stage(self.student_stage)), t.shape[2:])
        return {"features": self.weight * normalised_distance(s, t)}

    def equation(self) -> str:
        return weighted(self.weight, f"NormalisedMSE(t_{self.teacher_stage} -> s_{self.student_stage})")


def last_stage(channels: Channels) -> str:
    """The last stage before the classifier."""
    return "d2" if channels.has_decoder else "e5"


def normalised_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of [B, C, H, W] with each channel of each image at mean 0 and variance 1."""
    s, t = (standardise(maps.flatten(2).flatten(0, 1)) for maps in (student, teacher))
    # At norm 1 the sum over the pixels is the mean at variance 1.
    return (s - t).square().sum(dim=1).mean()
