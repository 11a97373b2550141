"""Distillation of the logits alone: softened, decoupled, correlated, standardised.

All of them take each pixel for an instance, as segmentation does. Several lose half of their meaning where
there are only two classes, which is what their documentation says.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from distillation.affinities import unit
from distillation.distances import channel_kl, mean_kl
from distillation.layerwise import Layerwise
from distillation.method import Method, times
from networks.contract import Channels, Features
from utils.batch import Batch

LEAST_SPREAD = 1e-3
"""The gradient of what has been standardised grows as 1 / standard deviation. Between the classes of a pixel that is
exactly 0 where two logits are equal, and networks in half precision have such pixels in nearly every batch, along
the border between two classes. One gradient in the thousands keeps Adam's steps tiny for hundreds of steps after.
It also mutes DIST's intra-class term for a student that is sure of one class everywhere, until it doubts."""


class KD(Layerwise):
    """Knowledge distillation (KD): softened class probabilities of every pixel.

    G. Hinton, O. Vinyals, J. Dean: Distilling the Knowledge in a Neural Network, 2015 (arXiv 1503.02531):
    weight T^2 KL(softmax(t / T) || softmax(s / T)), mean over the pixels. The paper fixes neither number; T = 4
    is what HLFD and EMKD use.
    """

    symbol = "KL"

    def __init__(self, student: Channels, teacher: Channels, temperature: float = 4.0, weight: float = 1.0) -> None:
        super().__init__(student, teacher, ("logits",), weight)
        self.temperature = temperature

    def distance(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        return channel_kl(student, teacher, self.temperature)


class StandardisedKD(KD):
    """Logit standardisation: KD between z-scores, so that only the logits' relations count, not their size.

    S. Sun, W. Ren, J. Li, R. Wang, X. Cao: Logit Standardization in Knowledge Distillation, CVPR 2024
    (arXiv 2403.01427), with its base temperature 2 and weight 9. The standard deviation is over a pixel's
    classes, without Bessel's correction, as in the paper's algorithm 1. Gradients are bounded: see `LEAST_SPREAD`.

    Two logits have the z-scores 1 and -1, whatever they are: with two classes the loss only counts the pixels
    that student and teacher call differently, and its gradient is 0. It takes three classes to teach.
    """

    symbol = "KL_standardised"

    def __init__(self, student: Channels, teacher: Channels, temperature: float = 2.0, weight: float = 9.0) -> None:
        super().__init__(student, teacher, temperature, weight)
        self.classes = student.classes

    def distance(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        return super().distance(layer, standardise(student), standardise(teacher))

    def equation(self) -> str:
        return super().equation() + no_gradient(self.classes)


class DecoupledKD(Method):
    """Decoupled knowledge distillation (DKD): how sure of the true class, and which other class instead.

    B. Zhao, Q. Cui, R. Song, Y. Qiu, J. Liang: Decoupled Knowledge Distillation, CVPR 2022 (arXiv 2203.08679):
    T^2 (alpha TCKD + beta NCKD) with alpha 1, beta 8, T 4; TCKD is the KL of (p, 1 - p), p the true class's
    probability, NCKD the KL of the softmax over the other classes, both means over the pixels. Without the
    paper's warm-up over the first epochs, which is a matter of the training (see `SCHEDULES` of the tasks).

    With two classes there is one other class, and NCKD is exactly 0: what is left is alpha times KD.
    """

    def __init__(
        self, student: Channels, teacher: Channels, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0
    ) -> None:
        super().__init__()
        self.alpha, self.beta, self.temperature = alpha, beta, temperature
        self.classes = student.classes

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        target = F.one_hot(batch.mask.long(), student.logits.shape[1]).movedim(-1, 1).bool()
        s, t = student.logits / self.temperature, teacher.logits / self.temperature
        tckd = mean_kl(target_or_not(s, target), target_or_not(t, target), dim=1)
        nckd = mean_kl(among_others(s, target), among_others(t, target), dim=1)
        scale = self.temperature**2
        return {"tckd": self.alpha * scale * tckd, "nckd": self.beta * scale * nckd}

    def equation(self) -> str:
        tckd, nckd = (f"{name}(t_logits -> s_logits)" for name in ("TCKD", "NCKD"))
        return f"{times(self.alpha, tckd)} + {times(self.beta, nckd)}{no_gradient(self.classes)}"


class DIST(Method):
    """DIST, correlation in place of equality: between classes in a pixel, and between pixels in a class.

    T. Huang, S. You, F. Wang, C. Qian, C. Xu: Knowledge Distillation from A Stronger Teacher, NeurIPS 2022
    (arXiv 2205.10536): T^2 (beta (1 - inter) + gamma (1 - intra)), with beta, gamma and T all 1 as in the
    authors' segmentation code. inter is Pearson's correlation of a pixel's probabilities, mean over the pixels;
    intra that of a class's probabilities at all pixels of the batch, mean over the classes. What does not vary
    has correlation 0. Gradients are bounded: see `LEAST_SPREAD`.

    Two probabilities correlate with 1 or -1: with two classes the inter-class term is twice the share of pixels
    that student and teacher call differently, and has no gradient; the other term does the teaching.
    """

    def __init__(
        self, student: Channels, teacher: Channels, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.beta, self.gamma, self.temperature = beta, gamma, temperature
        self.classes = student.classes

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        s, t = ((logits / self.temperature).softmax(dim=1) for logits in (student.logits, teacher.logits))
        inter = pearson(s, t).mean()
        intra = pearson(s.transpose(0, 1).flatten(1), t.transpose(0, 1).flatten(1)).mean()
        scale = self.temperature**2
        return {"inter": self.beta * scale * (1 - inter), "intra": self.gamma * scale * (1 - intra)}

    def equation(self) -> str:
        inter, intra = (f"(1 - {name}(t_logits, s_logits))" for name in ("inter", "intra"))
        return f"{times(self.beta, inter)}{no_gradient(self.classes)} + {times(self.gamma, intra)}"


def no_gradient(classes: int) -> str:
    """What an equation says after a term that two classes leave without a gradient."""
    return " (no gradient: two classes)" if classes == 2 else ""


def standardise(logits: Tensor) -> Tensor:
    """Z-scores over the classes of [B, C, H, W]; 0 where all classes have the same logit."""
    return math.sqrt(logits.shape[1]) * standard_direction(logits)


def target_or_not(logits: Tensor, target: Tensor) -> Tensor:
    """log p and log (1 - p) of the true class, [B, 2, H, W]; target: its one-hot, bool [B, C, H, W]."""
    log_p = F.log_softmax(logits, dim=1)
    of_target = log_p.masked_fill(~target, 0).sum(dim=1)
    of_others = log_p.masked_fill(target, -torch.inf).logsumexp(dim=1)
    return torch.stack((of_target, of_others), dim=1)


def among_others(logits: Tensor, target: Tensor) -> Tensor:
    """Log-softmax over all classes but the true one, [B, C, H, W], with a neutral 0 for that one."""
    return F.log_softmax(logits.masked_fill(target, -torch.inf), dim=1).masked_fill(target, 0)


def pearson(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's correlation along dimension 1; 0 where one of them is constant."""
    return (standard_direction(one) * standard_direction(other)).sum(dim=1)


def standard_direction(values: Tensor) -> Tensor:
    """Values along dimension 1 at mean 0 and norm 1, or all 0 where they are equal.

    Where the standard deviation is below `LEAST_SPREAD` the gradient is as if it were that, and 0 where it is 0.
    """
    centred = values - values.mean(dim=1, keepdim=True)
    norm = torch.linalg.vector_norm(centred.detach(), dim=1, keepdim=True)
    share: Tensor = (norm / (LEAST_SPREAD * math.sqrt(centred.shape[1]))).clamp(max=1)
    direction = unit(centred, dim=1)
    bounded: Tensor = share * direction + ((1 - share) * direction).detach()
    return bounded
