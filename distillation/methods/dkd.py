"""Decoupled knowledge distillation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distillation.distances import mean_kl
from distillation.method import Method, weighted
from distillation.standardise import no_gradient
from networks.contract import Features
from utils.batch import Batch
from utils.numbers import NonNegative, Positive


class DecoupledKD(Method):
    """Decoupled knowledge distillation (DKD): how sure of the true class, and which other class instead.

    B. Zhao, Q. Cui, R. Song, Y. Qiu, J. Liang: Decoupled Knowledge Distillation, CVPR 2022 (arXiv 2203.08679):
    T^2 (alpha TCKD + beta NCKD) with alpha 1, beta 8, T 4; TCKD is the KL of (p, 1 - p), p the true class's
    probability, NCKD the KL of the softmax over the other classes, both means over the pixels. Without the
    paper's warm-up over the first epochs, which is an option of the training (`--kd_schedule warmup`).

    With two classes there is one other class, and NCKD is exactly 0: what is left is alpha times KD with this T.
    """

    needs = "probabilities"
    alpha: NonNegative = 1.0
    beta: NonNegative = 8.0
    temperature: Positive = 4.0

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        target = F.one_hot(batch.mask.long(), student.logits.shape[1]).movedim(-1, 1).bool()
        s, t = student.logits / self.temperature, teacher.logits / self.temperature
        tckd = mean_kl(target_or_not(s, target), target_or_not(t, target), dim=1)
        nckd = mean_kl(among_others(s, target), among_others(t, target), dim=1)
        scale = self.temperature**2
        return {"tckd": self.alpha * scale * tckd, "nckd": self.beta * scale * nckd}

    def equation(self) -> str:
        tckd, nckd = (f"{name}(t_logits -> s_logits)" for name in ("TCKD", "NCKD"))
        nckd_note = no_gradient(self.student_channels.classes)
        return f"{weighted(self.alpha, tckd)} + {weighted(self.beta, nckd)}{nckd_note}"


def target_or_not(logits: Tensor, target: Tensor) -> Tensor:
    """log p and log (1 - p) of the true class, [B, 2, H, W]; target: its one-hot, bool [B, C, H, W]."""
    log_p = F.log_softmax(logits, dim=1)
    log_target = log_p.masked_fill(~target, 0).sum(dim=1)
    log_others = log_p.masked_fill(target, -torch.inf).logsumexp(dim=1)
    return torch.stack((log_target, log_others), dim=1)


def among_others(logits: Tensor, target: Tensor) -> Tensor:
    """Log-softmax over all classes but the true one, [B, C, H, W], with a neutral 0 for that one."""
    return F.log_softmax(logits.masked_fill(target, -torch.inf), dim=1).masked_fill(target, 0)
