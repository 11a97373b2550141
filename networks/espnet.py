"""ESPNet.

S. Mehta, M. Rastegari, A. Caspi, L. Shapiro, H. Hajishirzi: ESPNet: Efficient Spatial Pyramid of Dilated Convolutions
for Semantic Segmentation, ECCV 2018 (arXiv 1803.06815), with alpha2 = 2 and alpha3 = 8.
"""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.blocks import bn_prelu
from networks.contract import Features, SegmentationNetwork, pad_to_multiple
from networks.pretrained import refuse_imagenet
from utils.layers import BatchNorm

RATES = (1, 2, 4, 8, 16)


class ESP(nn.Module):
    """Efficient spatial pyramid: reduce to a fifth, five dilated 3x3 convolutions side by side, fuse, normalise.

    Hierarchical feature fusion against gridding: each branch from rate 4 on is added to the sum of those from rate 2
    up to it before all are joined; the undilated branch takes the channels that five does not divide. `residual` adds
    the input, which must then have the output's shape.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, residual: bool = False) -> None:
        super().__init__()
        width = outputs // len(RATES)
        widths = (outputs - (len(RATES) - 1) * width, *(len(RATES) - 1) * (width,))
        kernel = 1 if stride == 1 else 3
        self.residual = residual
        self.reduce = nn.Conv2d(inputs, width, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.branches = nn.ModuleList(
            nn.Conv2d(width, channels, kernel_size=3, padding=rate, dilation=rate, bias=False)
            for rate, channels in zip(RATES, widths, strict=True)
        )
        self.activation = bn_prelu(outputs)

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.reduce(x)
        undilated, *dilated = (branch(reduced) for branch in self.branches)
        fused = torch.cat((undilated, *accumulate(dilated)), dim=1)
        activated: Tensor = self.activation(x + fused if self.residual else fused)
        return activated


def conv_bn_prelu(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, bn_prelu(outputs))


def double(channels: int) -> nn.ConvTranspose2d:
    """Doubles the size."""
    return nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2, bias=False)


class ESPNet(SegmentationNetwork):
    """e1 is the first convolution, e2 the ESP modules at stride 4; at stride 8, e3 is the strided ESP module, e4 and e5
    are the first and the last four of the eight after it.

    d5 is the upsampled class map of stride 8 and d4 its fusion with level 2 (stride 4), d3 the upsampled d4 and d2 its
    fusion with level 1 (stride 2). The paper's decoder has as many channels as classes, 20 on Cityscapes. Two or
    three leave none to the five branches of an ESP module, so here it keeps 20 and only the last deconvolution
    knows the classes. 0.36 M parameters. Images are padded to a multiple of 8, the logits cropped back; the stages
    keep the padded sizes.
    """

    encoder_channels = (16, 64, 128, 128, 128)
    decoder_channels = (20, 20, 20, 20)
    encoder_strides, decoder_strides = (2, 4, 8, 8, 8), (4, 4, 2, 2)

    def __init__(self, classes: int, pretrained: bool | Path = False) -> None:
        refuse_imagenet(pretrained, "espnet", instead="mobilenet_v2")
        super().__init__(classes)
        width = self.decoder_channels[0]
        self.level1 = conv_bn_prelu(1, 16, stride=2)
        self.join1 = bn_prelu(16 + 1)
        self.down2 = ESP(16 + 1, 64, stride=2)
        self.level2 = self._modules_of(64, count=2)
        self.join2 = bn_prelu(64 + 64 + 1)
        self.down3 = ESP(64 + 64 + 1, 128, stride=2)
        self.level3a, self.level3b = self._modules_of(128, count=4), self._modules_of(128, count=4)
        self.join3 = bn_prelu(128 + 128)
        self.project3 = nn.Sequential(nn.Conv2d(128 + 128, width, kernel_size=1, bias=False), BatchNorm(width))
        self.project2 = nn.Conv2d(64 + 64 + 1, width, kernel_size=1, bias=False)
        self.up3 = double(width)
        self.fuse2 = nn.Sequential(bn_prelu(2 * width), ESP(2 * width, width))
        self.up2 = nn.Sequential(double(width), bn_prelu(width))
        self.fuse1 = conv_bn_prelu(width + 16 + 1, width, stride=1)
        self.head = nn.ConvTranspose2d(width, classes, kernel_size=2, stride=2, bias=False)

    @staticmethod
    def _modules_of(channels: int, count: int) -> nn.Sequential:
        return nn.Sequential(*(ESP(channels, channels, residual=True) for _ in range(count)))

    def features(self, image: Tensor) -> Features:
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image, 8)
        half = self._halve(padded)
        e1 = self.level1(padded)
        joined1 = self.join1(torch.cat((e1, half), dim=1))
        down2 = self.down2(joined1)
        e2 = self.level2(down2)
        joined2 = self.join2(torch.cat((e2, down2, self._halve(half)), dim=1))
        e3 = self.down3(joined2)
        e4 = self.level3a(e3)
        e5 = self.level3b(e4)
        d5 = self.up3(self.project3(self.join3(torch.cat((e3, e5), dim=1))))
        d4 = self.fuse2(torch.cat((self.project2(joined2), d5), dim=1))
        d3 = self.up2(d4)
        d2 = self.fuse1(torch.cat((d3, joined1), dim=1))
        return Features((e1, e2, e3, e4, e5), (d5, d4, d3, d2), self.head(d2)[..., :height, :width])

    @staticmethod
    def _halve(image: Tensor) -> Tensor:
        """The image at half the size, which each level sees again (input reinforcement)."""
        return F.avg_pool2d(image, kernel_size=3, stride=2, padding=1)
