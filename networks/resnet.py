"""ResNet encoders, and the published students: a ResNet with a 1x1 head and no decoder.

K. He, X. Zhang, S. Ren, J. Sun: Deep Residual Learning for Image Recognition, CVPR 2016 (arXiv 1512.03385).
"""

from __future__ import annotations

from pathlib import Path

import torchvision
from torch import Tensor, nn

from networks.blocks import Encoder
from networks.contract import Features, SegmentationNetwork, resize
from networks.pretrained import load_imagenet
from utils.layers import BatchNorm


class ResNetEncoder(Encoder):
    """torchvision's ResNet for one grey channel, its classifier left out.

    e1 is the stem before its max pooling (stride 2), e2..e5 are layer1..layer4 (strides 4..32). Parameter
    names are torchvision's.
    """

    def __init__(self, depth: int, pretrained: bool | Path = False) -> None:
        super().__init__()
        resnet = getattr(torchvision.models, f"resnet{depth}")(norm_layer=BatchNorm)
        self.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.bn1, self.relu, self.maxpool = resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2 = resnet.layer1, resnet.layer2
        self.layer3, self.layer4 = resnet.layer3, resnet.layer4
        expansion = resnet.fc.in_features // 512
        self.channels = (64, *(width * expansion for width in (64, 128, 256, 512)))
        if pretrained:
            load_imagenet(self, f"resnet{depth}", pretrained, unused=("fc.",))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """e1..e5 of an image [B, 1, H, W]."""
        e1 = self.relu(self.bn1(self.conv1(image)))
        e2 = self.layer1(self.maxpool(e1))
        e3 = self.layer2(e2)
        e4 = self.layer3(e3)
        return e1, e2, e3, e4, self.layer4(e4)


class EncoderSegmenter(SegmentationNetwork):
    """A 1x1 head on e5, upsampled to the image. Without a decoder, e4..e1 themselves stand for d5..d2."""

    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__(classes)
        self.encoder = encoder
        self.encoder_channels, self.encoder_strides = encoder.channels, encoder.strides
        self.head = nn.Conv2d(self.encoder_channels[-1], classes, kernel_size=1)

    def features(self, image: Tensor) -> Features:
        encoder = self.encoder(image)
        return Features(encoder, encoder[3::-1], resize(self.head(encoder[-1]), image.shape[-2:]))


def resnet_18(classes: int, pretrained: bool | Path = False) -> EncoderSegmenter:
    return EncoderSegmenter(ResNetEncoder(18, pretrained), classes)


def resnet_34(classes: int, pretrained: bool | Path = False) -> EncoderSegmenter:
    return EncoderSegmenter(ResNetEncoder(34, pretrained), classes)


def resnet_50(classes: int, pretrained: bool | Path = False) -> EncoderSegmenter:
    return EncoderSegmenter(ResNetEncoder(50, pretrained), classes)
