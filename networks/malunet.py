"""MALUNet.

J. Ruan, S. Xiang, M. Xie, T. Liu, Y. Fu: MALUNet: A Multi-Attention and Light-weight UNet for Skin Lesion
Segmentation, BIBM 2022 (arXiv 2211.01784).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from networks.contract import Features, SegmentationNetwork, pad_to_multiple, resize
from networks.pretrained import refuse_imagenet


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(4, channels)


def separable_conv(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Depthwise convolution that keeps the size, group norm, 1x1 convolution."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, kernel, padding=kernel // 2, groups=inputs),
        norm(inputs),
        nn.Conv2d(inputs, outputs, kernel_size=1),
    )


class GatedAttention(nn.Module):
    """The product of a sigmoid gate and a wider view of the input, plus a 1x1 shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(separable_conv(inputs, inputs, kernel=3), nn.Sigmoid())
        self.value = nn.Sequential(separable_conv(inputs, inputs, kernel=5), nn.GELU())
        self.out = nn.Sequential(separable_conv(inputs, outputs, kernel=3), nn.GELU())
        self.shortcut = nn.Conv2d(inputs, outputs, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = self.out(self.gate(x) * self.value(x)) + self.shortcut(x)
        return gated


class DilatedGatedAttention(nn.Module):
    """DGA: each quarter of the channels at a dilation of its own, mixed by a 1x1 convolution, then gated."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        quarter = inputs // 4
        self.dilated = nn.ModuleList(
            nn.Conv2d(quarter, quarter, kernel_size=3, padding=rate, dilation=rate, groups=quarter)
            for rate in (7, 5, 2, 1)
        )
        self.mix = nn.Sequential(norm(inputs), nn.Conv2d(inputs, inputs, kernel_size=1), nn.GELU())
        self.gated = GatedAttention(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        quarters = (conv(part) for conv, part in zip(self.dilated, x.chunk(4, dim=1), strict=True))
        attended: Tensor = self.gated(self.mix(torch.cat(tuple(quarters), dim=1)))
        return attended


class InvertedExternalAttention(nn.Module):
    """IEA: attention to two learnt memories of 4 C entries, shared by all images.

    External attention after M.-H. Guo et al., Beyond Self-Attention, TPAMI 2022 (arXiv 2105.02358), with its double
    normalisation (softmax over the pixels, then sum 1 over the entries), but more entries than channels, not fewer.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels, kernel_size=1)
        self.keys = nn.Conv1d(channels, 4 * channels, kernel_size=1, bias=False)
        self.values = nn.Conv1d(4 * channels, channels, kernel_size=1, bias=False)
        self.out = nn.Sequential(nn.Conv2d(channels, channels, kernel_size=1, bias=False), norm(channels))
        self.activation = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        attention = self.keys(self.query(x).flatten(2)).softmax(dim=2)
        attention = attention / (attention.sum(dim=1, keepdim=True) + 1e-9)
        attended: Tensor = self.activation(x + self.out(self.values(attention).reshape(x.shape)))
        return attended


class SpatialBridge(nn.Module):
    """SAB: x + a(x) * x for each stage x; a, one dilated 7x7 convolution shared by all, sees mean and maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size=7, padding=9, dilation=3)

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        return [x + self._attention(x) * x for x in stages]

    def _attention(self, x: Tensor) -> Tensor:
        pooled = torch.cat((x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)), dim=1)
        attention: Tensor = self.conv(pooled).sigmoid()
        return attention


class ChannelBridge(nn.Module):
    """CAB: x + a * x for each stage x; a are weights of its channels, from the pooled channels of all stages."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.mix = nn.Conv1d(1, 1, kernel_size=3, padding=1, bias=False)
        self.weigh = nn.ModuleList(nn.Linear(sum(channels), count) for count in channels)

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        pooled = torch.cat([x.mean(dim=(2, 3)) for x in stages], dim=1)
        mixed = self.mix(pooled.unsqueeze(1)).squeeze(1)
        return [x + weigh(mixed).sigmoid()[:, :, None, None] * x for weigh, x in zip(self.weigh, stages, strict=True)]


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)


def encode(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(InvertedExternalAttention(inputs), DilatedGatedAttention(inputs, outputs))


def decode(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(DilatedGatedAttention(inputs, outputs), InvertedExternalAttention(outputs))


class MALUNet(SegmentationNetwork):
    """Six encoder stages; the first five reach the decoder's stages over the two bridges.

    e1..e4 are the first four stages (strides 2..16), e5 the sixth (stride 32, like the fifth, which is left out);
    d5..d2 are the last four decoder stages (strides 16..2). 0.178 M parameters: the paper's 0.175 M are without the
    group norms. Images are padded to a multiple of 32, the logits upsampled from stride 2 and cropped back; the
    stages keep the padded sizes.
    """

    encoder_channels = (8, 16, 24, 32, 64)
    decoder_channels = (32, 24, 16, 8)
    slower_in_bf16 = True

    def __init__(self, classes: int, pretrained: bool | Path = False) -> None:
        refuse_imagenet(pretrained, "malunet", instead="mobilenet_v2")
        super().__init__(classes)
        widths = (8, 16, 24, 32, 48)
        encoders = (conv(1, 8), conv(8, 16), conv(16, 24), encode(24, 32), encode(32, 48))
        decoders = (decode(64, 48), decode(48, 32), decode(32, 24), conv(24, 16), conv(16, 8))
        self.stages = nn.ModuleList(
            nn.Sequential(block, norm(width), nn.MaxPool2d(kernel_size=2), nn.GELU())
            for block, width in zip(encoders, widths, strict=True)
        )
        self.bottom = nn.Sequential(encode(48, 64), nn.GELU())
        self.bridges = nn.Sequential(SpatialBridge(), ChannelBridge(widths))
        self.blocks = nn.ModuleList(
            nn.Sequential(block, norm(width)) for block, width in zip(decoders, widths[::-1], strict=True)
        )
        self.activation = nn.GELU()
        self.head = nn.Conv2d(8, classes, kernel_size=1)

    def features(self, image: Tensor) -> Features:
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image, 32)
        x, stages = padded, []
        for stage in self.stages:
            x = stage(x)
            stages.append(x)
        bottom = x = self.bottom(x)
        decoder = []
        for block, skip in zip(self.blocks, reversed(self.bridges(stages)), strict=True):
            x = self.activation(resize(block(x), skip.shape[2:])) + skip
            decoder.append(x)
        logits = resize(self.head(x), padded.shape[-2:])
        return Features((*stages[:4], bottom), tuple(decoder[1:]), logits[..., :height, :width])
