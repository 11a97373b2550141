"""MobileNetV2: a student with a 1x1 head, and the encoder of a small U-Net.

M. Sandler, A. Howard, M. Zhu, A. Zhmoginov, L.-C. Chen: MobileNetV2: Inverted Residuals and Linear Bottlenecks,
CVPR 2018 (arXiv 1801.04381).
"""

from __future__ import annotations

from pathlib import Path

import torchvision
from torch import Tensor, nn

from networks.blocks import Encoder
from networks.pretrained import load_imagenet
from networks.resnet import EncoderSegmenter
from networks.unet import UNet
from utils.layers import BatchNorm


class MobileNetV2Encoder(Encoder):
    """torchvision's MobileNetV2 for one grey channel; each stage is the last bottleneck at strides 2, 4, 8, 16, 32.

    e5 has 320 channels, for the last 1x1 convolution to 1280 serves the classifier: the authors leave it out for
    segmentation (section 6.3). Parameter names are torchvision's.
    """

    channels = (16, 24, 32, 96, 320)
    last_layers = (1, 3, 6, 13, 17)
    slower_in_bf16 = True

    def __init__(self, pretrained: bool | Path = False) -> None:
        super().__init__()
        self.features = torchvision.models.mobilenet_v2(norm_layer=BatchNorm).features[:18]
        stem = nn.Conv2d(1, 32, kernel_size=3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out")
        self.features[0][0] = stem
        if pretrained:
            load_imagenet(self, "mobilenet_v2", pretrained, unused=("features.18.", "classifier."))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """e1..e5 of an image [B, 1, H, W]."""
        x, stages = image, []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.last_layers:
                stages.append(x)
        return tuple(stages)


def mobilenet_v2(classes: int, pretrained: bool | Path = False) -> EncoderSegmenter:
    return EncoderSegmenter(MobileNetV2Encoder(pretrained), classes)


def unet_mbv2(classes: int, pretrained: bool | Path = False) -> UNet:
    return UNet(MobileNetV2Encoder(pretrained), (96, 64, 32, 16), classes)
