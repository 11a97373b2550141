"""Logit standardisation."""

from __future__ import annotations

import math

from torch import Tensor

from distillation.distances import channel_kl
from distillation.method import Method, weighted
from distillation.standardise import no_gradient, standardise
from networks.contract import Features
from utils.batch import Batch
from utils.numbers import NonNegative, Positive


class StandardisedKD(Method):
    """Logit standardisation: KD between z-scores, so that only the logits' relations count, not their size.

    S. Sun, W. Ren, J. Li, R. Wang, X. Cao: Logit Standardization in Knowledge Distillation, CVPR 2024
    (arXiv 2403.01427), with its base temperature 2 and weight 9: weight T^2 KL(softmax(z(t) / T) || softmax(z(s) / T)),
    mean over the pixels. The standard deviation in z is over a pixel's classes, without Bessel's correction, as in the
    paper's algorithm 1. Gradients are bounded (see `distillation.standardise`).

    Two logits have the z-scores 1 and -1, whatever they are: with two classes the loss only counts the pixels where
    student and teacher predict different classes, and its gradient is 0. It takes three classes to teach.
    """

    needs = "probabilities"
    temperature: Positive = 2.0
    weight: NonNegative = 9.0

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        s, t = (z_scores(features.logits) for features in (student, teacher))
        return {"logits": self.weight * channel_kl(s, t, self.temperature)}

    def equation(self) -> str:
        term = weighted(self.weight, "KL_standardised(t_logits -> s_logits)")
        return term + no_gradient(self.student_channels.classes)


def z_scores(logits: Tensor) -> Tensor:
    """Over the classes of [B, C, H, W]; 0 where all classes have the same logit."""
    return math.sqrt(logits.shape[1]) * standardise(logits)
