"""U-Net, plain and with any encoder of five stages.

O. Ronneberger, P. Fischer, T. Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation,
MICCAI 2015 (arXiv 1505.04597), here with padded convolutions and batch norm.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from networks.blocks import Encoder
from networks.contract import Features, SegmentationNetwork, pad_to_multiple, resize
from networks.pretrained import refuse_imagenet
from networks.resnet import ResNetEncoder
from utils.layers import conv_bn_relu


def double_conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(conv_bn_relu(inputs, outputs, kernel=3), conv_bn_relu(outputs, outputs, kernel=3))


class PlainEncoder(Encoder):
    """Ronneberger's contracting path: e1..e5 at strides 1..16."""

    channels = (64, 128, 256, 512, 1024)
    strides = (1, 2, 4, 8, 16)

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(double_conv(*widths) for widths in pairwise((1, *self.channels)))
        self.pool = nn.MaxPool2d(kernel_size=2)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """e1..e5 of an image [B, 1, H, W] whose sizes divide by 16."""
        stages = [self.stages[0](image)]
        for stage in self.stages[1:]:
            stages.append(stage(self.pool(stages[-1])))
        return tuple(stages)


class UpBlock(nn.Module):
    """Doubles the size, joins the encoder's map of that size, convolves twice."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, outputs, kernel_size=2, stride=2)
        self.conv = double_conv(outputs + skip, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        joined: Tensor = self.conv(torch.cat((self.up(x), skip), dim=1))
        return joined


class UNet(SegmentationNetwork):
    """Any encoder of five stages, four `UpBlock`s (d5..d2 at the sizes of e4..e1), a 1x1 head on d2.

    Images are padded to a multiple of the encoder's stride, the logits upsampled where d2 is smaller than the
    image, and cropped back; the stages keep the padded sizes.
    """

    def __init__(self, encoder: Encoder, widths: tuple[int, ...], classes: int) -> None:
        super().__init__(classes)
        self.encoder = encoder
        self.encoder_channels, self.encoder_strides = encoder.channels, encoder.strides
        self.slower_in_bf16 = encoder.slower_in_bf16
        self.decoder_channels = widths
        inputs = (encoder.channels[-1], *widths[:-1])
        self.blocks = nn.ModuleList(map(UpBlock, inputs, encoder.channels[3::-1], widths))
        self.head = nn.Conv2d(widths[-1], classes, kernel_size=1)

    def features(self, image: Tensor) -> Features:
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image, self.encoder.strides[-1])
        encoder = self.encoder(padded)
        decoder: list[Tensor] = []
        x = encoder[-1]
        for block, skip in zip(self.blocks, encoder[3::-1], strict=True):
            x = block(x, skip)
            decoder.append(x)
        logits = resize(self.head(x), padded.shape[-2:])
        return Features(encoder, tuple(decoder), logits[..., :height, :width])


def unet(classes: int, pretrained: bool | Path = False) -> UNet:
    """Ronneberger's own widths; UserError if pretrained, for there are no ImageNet weights of it."""
    refuse_imagenet(pretrained, "unet", instead="unet_r18 or unet_r50")
    return UNet(PlainEncoder(), (512, 256, 128, 64), classes)


def unet_r18(classes: int, pretrained: bool | Path = False) -> UNet:
    return UNet(ResNetEncoder(18, pretrained), (256, 128, 64, 32), classes)


def unet_r50(classes: int, pretrained: bool | Path = False) -> UNet:
    return UNet(ResNetEncoder(50, pretrained), (256, 128, 64, 32), classes)
