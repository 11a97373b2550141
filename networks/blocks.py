"""Layers that several networks share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Encoder(nn.Module):
    """Gives five stages e1..e5, fine to coarse, with `channels`; `stride` is e5's."""

    stride: int
    channels: tuple[int, ...]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """e1..e5 of an image [B, 1, H, W]."""
        raise NotImplementedError


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that also trains with one value per channel (batch size 1 on a 1 x 1 map).

    One value has no variance, so that step uses the running statistics and leaves them alone.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


def conv_bn_relu(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Convolution that keeps the size, batch norm, ReLU; `kernel` is odd."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        BatchNorm(outputs),
        nn.ReLU(inplace=True),
    )


def bn_prelu(channels: int) -> nn.Sequential:
    """Batch norm, then PReLU with one slope per channel."""
    return nn.Sequential(BatchNorm(channels), nn.PReLU(channels))


class ConvPool(nn.Module):
    """Halves the size: a strided 3x3 convolution beside max pooling, `outputs` maps in all, then batch norm.

    ENet's initial block, which ERFNet uses at every stride.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs - inputs, kernel_size=3, stride=2, padding=1, bias=False)
        # Even sizes need no ceil_mode, but exports with free sizes only see with it that both branches agree.
        self.pool = nn.MaxPool2d(kernel_size=2, ceil_mode=True)
        self.norm = BatchNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        halved: Tensor = self.norm(torch.cat((self.conv(x), self.pool(x)), dim=1))
        return halved
