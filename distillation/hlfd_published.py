"""HLFD as the published code computes it, its slips included, to stand beside `hlfd` in one table.

V. Gorade, S. Mittal, D. Jha, U. Bagci: Rethinking Intermediate Layers Design in Knowledge Distillation for Kidney
and Liver Tumor Segmentation, ISBI 2024 (arXiv 2311.16700): alpha PMD + beta IMD over the stages of `hlfd` (the table
in `distillation.hierarchical`). It differs from `hlfd` in this:

* a student without a decoder has its stages upsampled to the input (align_corners=True) before they are used;
* every KL term has a new, random, untrained 1x1 convolution at every call, and divides by half the number of
  elements, as if there were two channels;
* maps are not scaled before the power of 4, so that attention to values below about 1e-3 is lost;
* the focal loss's factor (1 - p_t)^2 passes no gradient.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from distillation.hierarchical import HLFD_IMD, HLFD_PMD
from distillation.links import Link, LinkSum, common_size
from distillation.stages import gather
from networks.contract import Channels, Features, resize


class HLFDPublished(LinkSum):
    """HLFD as first published, errors included, to stand in one table with the corrected one.

    The random convolutions are drawn from torch's global generator."""

    focal_detached = True
    prediction_name = "KL_published"
    attention_name = "AT_published"

    def __init__(
        self,
        student: Channels,
        teacher: Channels,
        alpha: float = 0.1,
        beta: float = 0.9,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(HLFD_PMD, HLFD_IMD, alpha, beta, temperature)

    def prediction_distance(self, link: Link, student: Features, teacher: Features) -> Tensor:
        s, t = gather(student, link.student), gather(teacher, link.teacher)
        # A network without a decoder gives the encoder's own tensors in its place.
        if student.decoder[0] is student.encoder[3]:
            s = F.interpolate(s, size=student.logits.shape[2:], mode="bilinear", align_corners=True)
        if link.at_student:
            t = random_projection(t, s.shape[1])
        else:
            s = random_projection(s, t.shape[1])
        size = common_size(link, s, t)
        return published_kl(resize(s, size), resize(t, size), self.temperature)

    def attention_distance(self, link: Link, student: Features, teacher: Features) -> Tensor:
        s, t = gather(student, link.student), gather(teacher, link.teacher)
        size = common_size(link, s, t)
        difference = published_attention(resize(s, size)) - published_attention(resize(t, size))
        return difference.square().sum(dim=1).mean()

    def equation(self) -> str:
        return (
            f"{super().equation()}, where KL_published = (2 / channels) KL after a new random 1x1"
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
