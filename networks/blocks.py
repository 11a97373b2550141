"""Layers that several networks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from networks.contract import STRIDES
from utils.layers import BatchNorm


class Encoder(nn.Module):
    """Five stages e1..e5, fine to coarse, with the channel counts and strides that its attributes say."""

    channels: tuple[int, ...]
    strides: tuple[int, ...] = STRIDES
    slower_in_bf16 = False
    """Of networks that it is the encoder of (`networks.contract`)."""

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """e1..e5 of an image [B, 1, H, W]."""
        raise NotImplementedError


def bn_prelu(channels: int) -> nn.Sequential:
    """Batch norm, then PReLU with one slope per channel."""
    return nn.Sequential(BatchNorm(channels), nn.PReLU(channels))


class ConvPool(nn.Module):
    """Halves the size: a strided 3x3 convolution and max pooling, `outputs` channels in all, then batch norm.

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
