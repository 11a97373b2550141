"""Knowledge distillation of softened class probabilities."""

from __future__ import annotations

from torch import Tensor

from distillation.distances import channel_kl
from distillation.method import Method, weighted
from networks.contract import Features
from utils.batch import Batch
from utils.numbers import NonNegative, Positive


class KD(Method):
    """Knowledge distillation (KD): softened class probabilities of every pixel.

    G. Hinton, O. Vinyals, J. Dean: Distilling the Knowledge in a Neural Network, 2015 (arXiv 1503.02531):
    weight T^2 KL(softmax(t / T) || softmax(s / T)), mean over the pixels. The paper fixes neither number; T = 4
    is what HLFD and EMKD use.
    """

    temperature: Positive = 4.0
    weight: NonNegative = 1.0

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        return {"logits": self.weight * channel_kl(student.logits, teacher.logits, self.temperature)}

    def equation(self) -> str:
        return weighted(self.weight, "KL(t_logits -> s_logits)")
