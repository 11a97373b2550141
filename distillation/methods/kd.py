"""Knowledge distillation of softened class probabilities."""

from __future__ import annotations

from torch import Tensor

from distillation.distances import channel_kl
from distillation.method import Method, weighted
from networks.contract import Features
from utils.batch import Batch
from utils.numbers import NonNegative, Positive


class KD(Method):
    """Knowledge distillation (KD): the class probabilities of every pixel.

    G. Hinton, O. Vinyals, J. Dean: Distilling the Knowledge in a Neural Network, 2015 (arXiv 1503.02531):
    weight T^2 KL(softmax(t / T) || softmax(s / T)), mean over the pixels. The paper fixes neither number. T = 1 is
    what SKD, IFVD and CIRKD use for segmentation, with weights of 10, 10 and 1 (`skd_pairwise`, `ifvd` and `cirkd` cite
    them). The larger T, the more the many pixels that are easy count.
    """

    needs = "probabilities"
    temperature: Positive = 1.0
    weight: NonNegative = 1.0

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        return {"logits": self.weight * channel_kl(student.logits, teacher.logits, self.temperature)}

    def equation(self) -> str:
        return weighted(self.weight, "KL(t_logits -> s_logits)")


class SoftKD(KD):
    """Knowledge distillation of softened probabilities, with T = 4 and weight 0.1, as in EMKD and HLFD.

    The term that both add to their own: D. Qin, J.-J. Bu, Z. Liu, X. Shen, S. Zhou, J.-J. Gu, Z.-H. Wang, L. Wu,
    H.-F. Dai: Efficient Medical Image Segmentation Based on Knowledge Distillation, IEEE Transactions on Medical
    Imaging 2021 (arXiv 2108.09987), and V. Gorade, S. Mittal, D. Jha, U. Bagci: Rethinking Intermediate Layers Design
    in Knowledge Distillation for Kidney and Liver Tumor Segmentation, ISBI 2024 (arXiv 2311.16700).
    """

    temperature: Positive = 4.0
    weight: NonNegative = 0.1
