"""ENet.

A. Paszke, A. Chaurasia, S. Kim, E. Culurciello: ENet: A Deep Neural Network Architecture for Real-Time Semantic
Segmentation, 2016 (arXiv 1606.02147).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks.blocks import ConvPool, bn_prelu
from networks.contract import Features, SegmentationNetwork, pad_to_multiple
from networks.pretrained import refuse_imagenet
from utils.layers import BatchNorm


def max_pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """2x2 max pooling of [B, C, H, W], H and W even: the maxima, and where in its window each lay, 0..3 row by row."""
    windows = F.pixel_unshuffle(x, 2).unflatten(1, (x.shape[1], 4))
    maxima, where = windows.max(dim=2)
    return maxima, where


def max_unpool(x: Tensor, where: Tensor) -> Tensor:
    """Puts each value of [B, C, h, w] back where its window's maximum lay: [B, C, 2h, 2w], the rest 0.

    Equals F.max_unpool2d, with which ENet cannot be exported to ONNX with free image sizes.
    """
    corners = torch.arange(4, device=x.device)[:, None, None]
    windows = torch.where(where.unsqueeze(2) == corners, x.unsqueeze(2), 0.0)
    return F.pixel_shuffle(windows.flatten(1, 2), 2)


def conv(channels: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel_size=3, padding=dilation, dilation=dilation, bias=False)


def asymmetric_conv(channels: int) -> nn.Sequential:
    """A 5x5 convolution as 5x1, then 1x5."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel_size=(5, 1), padding=(2, 0), bias=False),
        bn_prelu(channels),
        nn.Conv2d(channels, channels, kernel_size=(1, 5), padding=(0, 2), bias=False),
    )


def extension(inputs: int, main: nn.Module, outputs: int, dropout: float, stride: int = 1) -> nn.Sequential:
    """A bottleneck's own branch: project to a quarter of `outputs`, `main`, expand, drop whole channels."""
    middle = outputs // 4
    return nn.Sequential(
        nn.Conv2d(inputs, middle, kernel_size=stride, stride=stride, bias=False),
        bn_prelu(middle),
        main,
        bn_prelu(middle),
        nn.Conv2d(middle, outputs, kernel_size=1, bias=False),
        BatchNorm(outputs),
        nn.Dropout2d(dropout),
    )


class Bottleneck(nn.Module):
    """Adds the branch to its input; `main` works on a quarter of the channels."""

    def __init__(self, channels: int, main: nn.Module, dropout: float) -> None:
        super().__init__()
        self.extension = extension(channels, main, channels, dropout)
        self.activation = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        joined: Tensor = self.activation(x + self.extension(x))
        return joined


class DownBottleneck(nn.Module):
    """Halves the size: adds the branch to the pooled input, whose missing channels are zeros."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.missing = outputs - inputs
        self.extension = extension(inputs, conv(outputs // 4), outputs, dropout, stride=2)
        self.activation = nn.PReLU(outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The halved maps, and where the maxima lay."""
        pooled, where = max_pool(x)
        padded = F.pad(pooled, (0, 0, 0, 0, 0, self.missing))
        return self.activation(padded + self.extension(x)), where


class UpBottleneck(nn.Module):
    """Doubles the size: adds the branch to the projected input, unpooled to where the encoder's maxima lay."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        middle = outputs // 4
        deconv = nn.ConvTranspose2d(middle, middle, kernel_size=3, stride=2, padding=1, output_padding=1, bias=False)
        self.project = nn.Sequential(nn.Conv2d(inputs, outputs, kernel_size=1, bias=False), BatchNorm(outputs))
        self.extension = extension(inputs, deconv, outputs, dropout)
        self.activation = nn.PReLU(outputs)

    def forward(self, x: Tensor, where: Tensor) -> Tensor:
        doubled: Tensor = self.activation(max_unpool(self.project(x), where) + self.extension(x))
        return doubled


def context(dropout: float) -> nn.Sequential:
    """The eight bottlenecks of 128 channels that stages 2 and 3 share in form: regular, dilated, asymmetric."""
    mains = (
        *(conv(32), conv(32, dilation=2), asymmetric_conv(32), conv(32, dilation=4)),
        *(conv(32), conv(32, dilation=8), asymmetric_conv(32), conv(32, dilation=16)),
    )
    return nn.Sequential(*(Bottleneck(128, main, dropout) for main in mains))


class ENet(SegmentationNetwork):
    """e1 is the initial block, e2 stage 1; at stride 8, e3 is bottleneck 2.0, e4 stage 2, e5 stage 3.

    d5 and d4 are bottleneck 4.0 and all of stage 4 (stride 4), d3 and d2 bottleneck 5.0 and all of stage 5 (stride 2).
    0.36 M parameters; the paper says 0.37 M. Images are padded to a multiple of 8, the logits cropped back; the stages
    keep the padded sizes.
    """

    encoder_channels = (16, 64, 128, 128, 128)
    decoder_channels = (64, 64, 16, 16)
    encoder_strides, decoder_strides = (2, 4, 8, 8, 8), (4, 4, 2, 2)

    def __init__(self, classes: int, pretrained: bool | Path = False) -> None:
        refuse_imagenet(pretrained, "enet", instead="mobilenet_v2")
        super().__init__(classes)
        self.initial = nn.Sequential(ConvPool(1, 16), nn.PReLU(16))
        self.down1 = DownBottleneck(16, 64, dropout=0.01)
        self.stage1 = nn.Sequential(*(Bottleneck(64, conv(16), dropout=0.01) for _ in range(4)))
        self.down2 = DownBottleneck(64, 128, dropout=0.1)
        self.stage2, self.stage3 = context(dropout=0.1), context(dropout=0.1)
        self.up4 = UpBottleneck(128, 64, dropout=0.1)
        self.stage4 = nn.Sequential(*(Bottleneck(64, conv(16), dropout=0.1) for _ in range(2)))
        self.up5 = UpBottleneck(64, 16, dropout=0.1)
        self.stage5 = Bottleneck(16, conv(4), dropout=0.1)
        self.head = nn.ConvTranspose2d(16, classes, kernel_size=2, stride=2)

    def features(self, image: Tensor) -> Features:
        height, width = image.shape[-2:]
        e1 = self.initial(pad_to_multiple(image, 8))
        halved, where1 = self.down1(e1)
        e2 = self.stage1(halved)
        e3, where2 = self.down2(e2)
        e4 = self.stage2(e3)
        e5 = self.stage3(e4)
        d5 = self.up4(e5, where2)
        d4 = self.stage4(d5)
        d3 = self.up5(d4, where1)
        d2 = self.stage5(d3)
        return Features((e1, e2, e3, e4, e5), (d5, d4, d3, d2), self.head(d2)[..., :height, :width])
