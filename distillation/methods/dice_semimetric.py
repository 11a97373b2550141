"""Dice semimetric loss: the Dice loss of soft labels, here the teacher's probabilities."""

from __future__ import annotations

from torch import Tensor

from distillation.method import Method, weighted
from networks.contract import Features
from utils.batch import Batch
from utils.numbers import NonNegative

SMOOTH = 1.0
"""As in the Dice loss of the masks."""


class DiceSemimetric(Method):
    """Dice semimetric loss (DML): the Dice loss, with the teacher's probabilities for soft labels.

    Z. Wang, T. Popordanoska, J. Bertels, R. Lemmens, M. B. Blaschko: Dice Semimetric Losses: Optimizing the Dice Score
    with Soft Labels, MICCAI 2023 (arXiv 2303.16296), its DML1:

        weight (1 - (|s| + |t| - |s - t| + 1) / (|s| + |t| + 1)), |x| = sum of the absolute values

    s and t are the probabilities of the foreground classes at all pixels of the batch, in one sum, as in the task's
    own Dice loss, and so is the 1 that smooths. Of hard labels it is that Dice loss; of soft ones, unlike that, it is 0
    where s = t. In [0, 1], whatever the size of maps and batch. The weight of 1 is ours.
    """

    needs = "probabilities"
    weight: NonNegative = 1.0

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        s, t = (features.logits.softmax(dim=1)[:, 1:] for features in (student, teacher))
        # The formula above with its two fractions as one, which gives exactly 0 for equal probabilities.
        return {"semimetric": self.weight * (s - t).abs().sum() / (s.sum() + t.sum() + SMOOTH)}

    def equation(self) -> str:
        return weighted(self.weight, "DML(t_logits -> s_logits)")
