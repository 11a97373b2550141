"""ResNet encoders, and the published students: a ResNet with a 1x1 head and no decoder.

K. He, X. Zhang, S. Ren, J. Sun: Deep Residual Learning for Image Recognition, CVPR 2016 (arXiv 1512.03385).
Output strides below 32 by dilation: L.-C. Chen, G. Papandreou, F. Schroff, H. Adam: Rethinking Atrous Convolution
for Semantic Image Segmentation, 2017 (arXiv 1706.05587).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import torchvision
from torch import Tensor, nn

from networks.blocks import Encoder
from networks.contract import STRIDES, Features, SegmentationNetwork, resize
from networks.pretrained import load_imagenet
from utils.layers import BatchNorm

OutputStride = Literal[8, 16, 32]


class ResNetEncoder(Encoder):
    """torchvision's ResNet for one grey channel, its classifier left out.

    e1 is the stem before its max pooling (stride 2), e2..e5 are layer1..layer4 (strides 4..32, none above the output
    stride). Parameter names are torchvision's, and names and shapes are the same at every output stride.
    """

    def __init__(self, depth: int, pretrained: bool | Path = False, output_stride: OutputStride = 32) -> None:
        super().__init__()
        resnet = getattr(torchvision.models, f"resnet{depth}")(norm_layer=BatchNorm)
        self.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.bn1, self.relu, self.maxpool = resnet.bn1, resnet.relu, resnet.maxpool
        self.layer1, self.layer2 = resnet.layer1, resnet.layer2
        self.layer3, self.layer4 = resnet.layer3, resnet.layer4
        self.strides = tuple(min(stride, output_stride) for stride in STRIDES)
        dilation = 1
        for layer, stride in ((self.layer3, 16), (self.layer4, 32)):
            if stride > output_stride:
                dilate(layer, dilation)
                dilation *= 2
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


def dilate(layer: nn.Module, dilation: int) -> None:
    """Keep the size in a layer that halved it: stride 1, and 3x3 kernels that reach as far as they did.

    As in torchvision, the layer's first block keeps the `dilation` of the layer before, the others double it. Set
    here because torchvision's own option refuses the blocks of ResNet-18 and ResNet-34.
    """
    for i, block in enumerate(layer.children()):
        reach = dilation if i == 0 else 2 * dilation
        for conv in block.modules():
            if isinstance(conv, nn.Conv2d):
                conv.stride = (1, 1)
                if conv.kernel_size == (3, 3):
                    conv.dilation = conv.padding = (reach, reach)


class EncoderSegmenter(SegmentationNetwork):
    """A 1x1 head on e5, upsampled to the image. Without a decoder, e4..e1 themselves stand for d5..d2."""

    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__(classes)
        self.encoder = encoder
        self.encoder_channels, self.encoder_strides = encoder.channels, encoder.strides
        self.slower_in_bf16 = encoder.slower_in_bf16
        self.head = nn.Conv2d(self.encoder_channels[-1], classes, kernel_size=1)

    def features(self, image: Tensor) -> Features:
        encoder = self.encoder(image)
        return Features(encoder, encoder[3::-1], resize(self.head(encoder[-1]), image.shape[-2:]))


def resnet(
    depth: int, classes: int, pretrained: bool | Path = False, output_stride: OutputStride = 32
) -> EncoderSegmenter:
    return EncoderSegmenter(ResNetEncoder(depth, pretrained, output_stride), classes)


resnet_18 = partial(resnet, 18)
resnet_18_os16 = partial(resnet, 18, output_stride=16)
resnet_18_os8 = partial(resnet, 18, output_stride=8)
resnet_34 = partial(resnet, 34)
resnet_34_os16 = partial(resnet, 34, output_stride=16)
resnet_34_os8 = partial(resnet, 34, output_stride=8)
resnet_50 = partial(resnet, 50)
resnet_50_os16 = partial(resnet, 50, output_stride=16)
resnet_50_os8 = partial(resnet, 50, output_stride=8)
