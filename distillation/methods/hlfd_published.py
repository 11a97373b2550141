"""HLFD as the published code computes it, its errors included, to compare with `hlfd` in one table.

V. Gorade, S. Mittal, D. Jha, U. Bagci: Rethinking Intermediate Layers Design in Knowledge Distillation for Kidney
and Liver Tumor Segmentation, ISBI 2024 (arXiv 2311.16700): alpha PMD + beta IMD over the links of `hlfd`. It
differs from `hlfd` in this:

* a student without a decoder has its stages upsampled to the input (align_corners=True) before they are used;
* every KL term has a new, random, untrained 1x1 convolution at every call, and divides by half the number of
  elements, as if there were two channels;
* maps are not scaled before the power of 4, so that attention to values below about 1e-3 is lost;
* the focal loss's factor (1 - p_t)^2 passes no gradient.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from distillation.method import Method
from distillation.methods.hlfd import VARIANTS, compared_size, gather, links_equation
from networks.contract import Features, resize
from utils.batch import Batch
from utils.numbers import NonNegative, Positive

LINKS = VARIANTS["hlfd"]


class HLFDPublished(Method):
    """HLFD as first published, errors included, to compare with the corrected one.

    The random convolutions are drawn from torch's global generator.
    """

    alpha: NonNegative = 0.1
    beta: NonNegative = 0.9
    temperature: Positive = 4.0
    focal_detached = True

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        terms = {}
        for link in LINKS:
            s, t = gather(student, link.student), gather(teacher, link.teacher)
            if link.part == "pmd":
                if not self.student_channels.has_decoder:
                    s = F.interpolate(s, size=student.logits.shape[2:], mode="bilinear", align_corners=True)
                if link.at_student:
                    t = random_projection(t, s.shape[1])
                else:
                    s = random_projection(s, t.shape[1])
                size = compared_size(link, s, t)
                distance = published_kl(resize(s, size), resize(t, size), self.temperature)
                terms[link.term] = self.alpha * link.weight * distance
            else:
                size = compared_size(link, s, t)
                difference = published_attention(resize(s, size)) - published_attention(resize(t, size))
                terms[link.term] = self.beta * link.weight * difference.square().sum(dim=1).mean()
        return terms

    def equation(self) -> str:
        links = links_equation(LINKS, pmd=(self.alpha, "KL_published"), imd=(self.beta, "AT_published"))
        return (
            f"{links}, where KL_published = (2 / channels) KL after a new random 1x1"
            " (the stages of a student without a decoder upsampled to the input first)"
            " and AT_published = AT without scaling before x^4"
        )


def random_projection(maps: Tensor, channels: int) -> Tensor:
    """A new 1x1 convolution, initialised as torch does, applied to [B, C, H, W] and then forgotten."""
    projection = nn.Conv2d(maps.shape[1], channels, kernel_size=1).requires_grad_(False)
    projected: Tensor = projection.to(maps.device)(maps)
    return projected


def published_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL over channels, summed over all elements and divided by half their number."""
    log_p = F.log_softmax(student / temperature, dim=1)
    log_q = F.log_softmax(teacher / temperature, dim=1)
    total = F.kl_div(log_p, log_q, reduction="sum", log_target=True)
    return temperature**2 * total / (teacher.numel() / 2)


def published_attention(maps: Tensor) -> Tensor:
    """The mean of x^4 over channels, [B, C, H, W] -> [B, H * W] of L2 norm 1."""
    return F.normalize(maps.pow(4).mean(dim=1).flatten(1), dim=1)
