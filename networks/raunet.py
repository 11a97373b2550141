"""RAUNet, the published teacher.

Z.-L. Ni, G.-B. Bian, X.-H. Zhou, Z.-G. Hou, X.-L. Xie, C. Wang, Y.-J. Zhou, R.-Q. Li, Z. Li: RAUNet: Residual
Attention U-Net for Semantic Segmentation of Cataract Surgical Instruments, ICONIP 2019 (arXiv 1909.10360).
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path

from torch import Tensor, nn

from networks.contract import Features, SegmentationNetwork, pad_to_multiple
from networks.resnet import OutputStride, ResNetEncoder
from utils.layers import BatchNorm, conv_bn_relu


class AugmentedAttention(nn.Module):
    """Adds the low-level (skip) map to the high-level one, its channels weighted by what both maps hold."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.high = conv_bn_relu(channels, channels, kernel=1)
        self.low = conv_bn_relu(channels, channels, kernel=1)
        self.weight = nn.Sequential(nn.Conv2d(channels, channels, kernel_size=1), nn.Softmax(dim=1))
        self.skip = conv_bn_relu(channels, channels, kernel=1)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """high, low: [B, C, H, W], both of one shape."""
        weight = self.weight(self.high(self.pool(high)) + self.low(self.pool(low)))
        attended: Tensor = high + weight * self.skip(low)
        return attended


class LinkNetBlock(nn.Sequential):
    """Multiplies the size by `scale`, 2 or 1, in a bottleneck of a quarter of the input channels.

    A. Chaurasia, E. Culurciello: LinkNet, VCIP 2017 (arXiv 1707.03718).
    """

    def __init__(self, inputs: int, outputs: int, scale: int) -> None:
        middle = inputs // 4
        super().__init__(
            conv_bn_relu(inputs, middle, kernel=1),
            nn.ConvTranspose2d(middle, middle, kernel_size=2 + scale, stride=scale, padding=1, bias=False),
            BatchNorm(middle),
            nn.ReLU(inplace=True),
            conv_bn_relu(middle, outputs, kernel=1),
        )


class RAUNet(SegmentationNetwork):
    """ResNet-34 encoder, LinkNet decoder blocks, augmented attention on the skips.

    d5, d4, d3 are the attention modules' outputs at the sizes of e4, e3, e2; d2 is the last block's, at e1's.
    Images are padded to a multiple of the output stride, the logits cropped back; the stages keep the padded sizes.
    Where an output stride below 32 keeps a size, the decoder's block does so too, and its transposed convolution
    is the one layer of another shape.
    """

    def __init__(self, classes: int, pretrained: bool | Path = False, output_stride: OutputStride = 32) -> None:
        super().__init__(classes)
        self.encoder = ResNetEncoder(34, pretrained, output_stride)
        self.encoder_channels, self.encoder_strides = self.encoder.channels, self.encoder.strides
        self.decoder_channels = (256, 128, 64, 64)
        inputs = (self.encoder_channels[-1], *self.decoder_channels[:-1])
        scales = (coarse // fine for coarse, fine in pairwise(reversed(self.encoder_strides)))
        self.blocks = nn.ModuleList(map(LinkNetBlock, inputs, self.decoder_channels, scales))
        self.attention = nn.ModuleList(map(AugmentedAttention, self.decoder_channels[:-1]))
        self.head = nn.Sequential(
            nn.ConvTranspose2d(64, 32, kernel_size=3, stride=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, kernel_size=3),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, classes, kernel_size=2, padding=1),
        )

    def features(self, image: Tensor) -> Features:
        height, width = image.shape[-2:]
        encoder = self.encoder(pad_to_multiple(image, self.encoder.strides[-1]))
        decoder: list[Tensor] = []
        x = encoder[-1]
        for block, attention, skip in zip(self.blocks, self.attention, encoder[3:0:-1], strict=False):
            x = attention(block(x), skip)
            decoder.append(x)
        decoder.append(self.blocks[-1](x))
        logits = self.head(decoder[-1])[..., :height, :width]
        return Features(encoder, tuple(decoder), logits)


raunet_os16 = partial(RAUNet, output_stride=16)
raunet_os8 = partial(RAUNet, output_stride=8)
