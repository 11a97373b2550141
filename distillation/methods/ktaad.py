"""Knowledge translation and affinity: an auto-encoder turns the teacher's map into a code the student can learn."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice, repeat
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillation.affinities import affinity_distance, l2_normalise
from distillation.method import Method, weighted
from distillation.stages import Layer
from distillation.teacher import Teacher
from networks.contract import Channels, Features, resize
from utils.batch import Batch
from utils.layers import conv_bn_relu
from utils.numbers import NonNegative, PositiveInt
from utils.progress import progress

LEARNING_RATE = 1e-3
MAX_PASSES = 10
SPARSITY = 1e-7
"""The weight of the code's L1 norm while the auto-encoder learns."""


class KTAAD(Method):
    """Knowledge translation and adaptation, with affinity distillation.

    T. He, C. Shen, Z. Tian, D. Gong, C. Sun, Y. Yan: Knowledge Adaptation for Efficient Semantic Segmentation, CVPR
    2019 (arXiv 1903.04688): beta (50 in the paper) times the mean over the pixels of ||n(a(s)) - n(e(t))||_2, plus
    gamma (1) times the mean over all pairs of pixels of (c_s - c_t)^2. n: L2 norm over the channels; a: the
    student's adapter, 3x3 convolution, batch norm, ReLU; e: the encoder of `AutoEncoder`; c: the cosine of two
    pixels' vectors.

    The auto-encoder learns the teacher's maps before the first step, for `steps` batches but at most 10
    passes over the training slices, and is frozen then. Of maps of more than 32 pixels in a row the
    affinity term compares averages over patches.
    """

    layer: Layer = "e5"
    beta: NonNegative = 50.0
    gamma: NonNegative = 1.0
    steps: PositiveInt = 1000

    def __init__(self, student: Channels, teacher: Channels, **options: Any) -> None:
        super().__init__(student, teacher, **options)
        self.autoencoder = AutoEncoder(teacher.stage(self.layer).channels).requires_grad_(False).eval()
        self.adapter = conv_bn_relu(student.stage(self.layer).channels, self.autoencoder.code, kernel=3)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.autoencoder.eval()
        return self

    def prepare(self, teacher: Teacher, loader: Iterable[Batch]) -> None:
        """Train the auto-encoder; the random state is afterwards what it was."""
        device = next(self.autoencoder.parameters()).device
        batches = islice(chain.from_iterable(repeat(loader, MAX_PASSES)), self.steps)
        self.autoencoder.requires_grad_(True).train()
        optimizer = torch.optim.Adam(self.autoencoder.parameters(), lr=LEARNING_RATE)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            for batch in progress(batches, "auto-encoder", unit="batch"):
                maps = teacher.features(batch.to(device)).stage(self.layer)
                optimizer.zero_grad()
                self.autoencoder.loss(maps).backward()
                optimizer.step()
        optimizer.zero_grad()
        self.autoencoder.requires_grad_(False).eval()

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        s, t = (features.stage(self.layer) for features in (student, teacher))
        adapted = resize(self.adapter(s), t.shape[2:])
        gap = l2_normalise(adapted, dim=1) - l2_normalise(self.autoencoder.encoder(t), dim=1)
        return {
            "adaptation": self.beta * torch.linalg.vector_norm(gap, dim=1).mean(),
            "affinity": self.gamma * affinity_distance(s, t),
        }

    def equation(self) -> str:
        adaptation = f"Adaptation(encoded t_{self.layer} -> s_{self.layer})"
        affinity = f"Affinity(t_{self.layer} -> s_{self.layer})"
        return f"{weighted(self.beta, adaptation)} + {weighted(self.gamma, affinity)}"


class AutoEncoder(nn.Module):
    """Maps of `channels` to a code of a quarter as many (at least 4) and back, three 3x3 convolutions each way.

    It keeps the size, for student and teacher are compared at the same stage.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half, self.code = max(4, channels // 2), max(4, channels // 4)
        self.encoder = nn.Sequential(
            conv_bn_relu(channels, half, kernel=3),
            conv_bn_relu(half, self.code, kernel=3),
            conv_bn_relu(self.code, self.code, kernel=3),
        )
        self.decoder = nn.Sequential(
            conv_bn_relu(self.code, self.code, kernel=3),
            conv_bn_relu(self.code, half, kernel=3),
            nn.Conv2d(half, channels, kernel_size=3, padding=1),
        )

    def loss(self, maps: Tensor) -> Tensor:
        """Squared error of the reconstruction + `SPARSITY` |code|, means over their elements."""
        code: Tensor = self.encoder(maps)
        return F.mse_loss(self.decoder(code), maps) + SPARSITY * code.abs().mean()
