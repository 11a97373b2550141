"""Holistic distillation: an adversary that has to distinguish the student's logits from the teacher's.

Y. Liu, K. Chen, C. Liu, Z. Qin, Z. Luo, J. Wang: Structured Knowledge Distillation for Semantic Segmentation,
CVPR 2019 (arXiv 1903.04197); Y. Liu, C. Shu, J. Wang, C. Shen: Structured Knowledge Distillation for Dense
Prediction, TPAMI 2020.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import cached
from torch.optim import Adam, Optimizer

from distillation.method import Method, weighted
from networks.contract import Channels, Features
from utils.batch import Batch
from utils.numbers import NonNegative

CRITIC_SIZE = 64
"""Pixels along each side of what the critic sees: the paper's logits are 1/8 of its 512 x 512 images."""


class Holistic(Method):
    """The student learns to please a critic D, and D in the same backward pass to distinguish it from the teacher.

    WGAN-GP, with the paper's weight 0.1 and penalty 10, means over the batch:
    holistic = weight (D(t) - D(s)), for the student alone: D's parameters are held constant;
    critic = weight (D(s) - D(t)), for D alone: the maps are held constant;
    penalty = weight penalty `gradient_penalty`, for D alone, too.

    D(t) is constant for the student; with it the first two terms are 0 for a copy of the teacher. The penalty has
    no such minimum. The terms nearly cancel out in the sum: it is no measure of progress. D has an Adam of its own
    with a constant learning rate of 4e-4 and betas 0.9 and 0.99, as in the authors' later code.
    """

    needs = "logits"
    weight: NonNegative = 0.1
    penalty: NonNegative = 10.0
    critic_lr: NonNegative = 4e-4

    def __init__(self, student: Channels, teacher: Channels, **options: Any) -> None:
        super().__init__(student, teacher, **options)
        self.critic = Critic(teacher.classes)

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        image, s, t = (pool_to_critic(maps) for maps in (batch.image, student.logits, teacher.logits.detach()))
        constants = {name: parameter.detach() for name, parameter in self.critic.named_parameters()}

        def constant_critic(*maps: Tensor) -> Tensor:
            value: Tensor = functional_call(self.critic, constants, maps)
            return value

        # The spectral norms change a little whenever they are computed: in a `cached` block that is only once.
        with cached():
            for_student = teachers_lead(constant_critic, image, s, t)
        with cached():
            for_critic = teachers_lead(self.critic, image, s.detach(), t)
            penalty = gradient_penalty(partial(self.critic, image), s.detach(), t)
        return {
            "holistic": self.weight * for_student,
            "critic": -self.weight * for_critic,
            "penalty": self.weight * self.penalty * penalty,
        }

    def equation(self) -> str:
        generator = weighted(self.weight, "(D(t_logits) - D(s_logits))")
        critic = weighted(self.weight, f"(D(s_logits) - D(t_logits) + {weighted(self.penalty, 'GP(D)')})")
        return f"{generator} for the student + {critic} for the critic D"

    def extra_optimizers(self) -> list[Optimizer]:
        return [Adam(self.critic.parameters(), lr=self.critic_lr, betas=(0.9, 0.99), fused=True)]


class Critic(nn.Module):
    """How well logits fit their image, as one number for each pair, whatever the number of classes.

    Five convolutions, all but the last with spectral norm, and self-attention before the last two (H. Zhang,
    I. Goodfellow, D. Metaxas, A. Odena: Self-Attention Generative Adversarial Networks, ICML 2019, arXiv
    1805.08318). The logits are brought to the image's scale by a batch norm that always uses the batch at hand.
    The last convolution has no bias: only differences of critics' values count.
    """

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(classes, track_running_stats=False)
        self.layers = nn.Sequential(
            halving(1 + classes, width),
            halving(width, 2 * width),
            halving(2 * width, 4 * width),
            SelfAttention(4 * width),
            halving(4 * width, 8 * width),
            SelfAttention(8 * width),
            nn.Conv2d(8 * width, 1, kernel_size=4, bias=False),
        )

    def forward(self, image: Tensor, logits: Tensor) -> Tensor:
        """[B] values of an image [B, 1, 64, 64] and logits [B, C, 64, 64]."""
        value: Tensor = self.layers(torch.cat((image, self.norm(logits)), dim=1))
        return value.flatten()


class SelfAttention(nn.Module):
    """x + gate * attention(x), with a gate that begins at 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, kernel_size=1, bias=False)
        self.key = nn.Conv2d(channels, channels // 8, kernel_size=1, bias=False)
        self.value = nn.Conv2d(channels, channels, kernel_size=1, bias=False)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Tensor) -> Tensor:
        query, key, value = (projection(maps).flatten(2) for projection in (self.query, self.key, self.value))
        affinity = (query.transpose(1, 2) @ key).softmax(dim=2)
        attended: Tensor = value @ affinity.transpose(1, 2)
        return maps + self.gate * attended.view_as(maps)


def halving(inputs: int, outputs: int) -> nn.Module:
    """A 4x4 convolution of stride 2 with spectral norm, and a leaky ReLU."""
    convolution = nn.Conv2d(inputs, outputs, kernel_size=4, stride=2, padding=1)
    return nn.Sequential(spectral_norm(convolution), nn.LeakyReLU(0.1))


def pool_to_critic(maps: Tensor) -> Tensor:
    """[B, C, H, W] of any size -> [B, C, 64, 64], means of the pixels."""
    return F.adaptive_avg_pool2d(maps, CRITIC_SIZE)


def teachers_lead(critic: Callable[..., Tensor], image: Tensor, student: Tensor, teacher: Tensor) -> Tensor:
    """By how much the critic prefers the teacher's logits, mean over the batch."""
    return (critic(image, teacher) - critic(image, student)).mean()


def gradient_penalty(critic: Callable[[Tensor], Tensor], student: Tensor, teacher: Tensor) -> Tensor:
    """The mean of (||gradient of the critic|| - 1)^2 at a random point between student and teacher, for each image.

    I. Gulrajani, F. Ahmed, M. Arjovsky, V. Dumoulin, A. Courville: Improved Training of Wasserstein GANs, NIPS
    2017 (arXiv 1704.00028). critic: [B, C, h, w] -> [B].
    """
    shares = torch.rand(len(student), 1, 1, 1, device=student.device)
    between = (shares * teacher + (1 - shares) * student).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: Tensor = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    return penalty
