"""ERFNet.

E. Romera, J. M. Alvarez, L. M. Bergasa, R. Arroyo: ERFNet: Efficient Residual Factorized ConvNet for Real-time
Semantic Segmentation, IEEE Transactions on Intelligent Transportation Systems 19(1), 2018.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from networks.blocks import ConvPool
from networks.contract import Features, SegmentationNetwork, pad_to_multiple
from networks.pretrained import refuse_imagenet
from utils.layers import BatchNorm


class FactorizedResidual(nn.Module):
    """Non-bottleneck-1D: two 3x3 convolutions, each as 3x1 and 1x3, the second dilated, around a residual."""

    def __init__(self, channels: int, dropout: float = 0.0, dilation: int = 1) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *self._factorized(channels, dilation=1),
            nn.ReLU(inplace=True),
            *self._factorized(channels, dilation),
            nn.Dropout2d(dropout),
        )
        self.activation = nn.ReLU(inplace=True)

    @staticmethod
    def _factorized(channels: int, dilation: int) -> tuple[nn.Module, ...]:
        column, row = (dilation, 0), (0, dilation)
        return (
            nn.Conv2d(channels, channels, kernel_size=(3, 1), padding=column, dilation=dilation),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, kernel_size=(1, 3), padding=row, dilation=dilation, bias=False),
            BatchNorm(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        joined: Tensor = self.activation(x + self.branch(x))
        return joined


def down(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(ConvPool(inputs, outputs), nn.ReLU(inplace=True))


def up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, kernel_size=3, stride=2, padding=1, output_padding=1, bias=False),
        BatchNorm(outputs),
        nn.ReLU(inplace=True),
    )


def dilated() -> nn.Sequential:
    """Four blocks of 128 channels, dilated 2, 4, 8 and 16."""
    return nn.Sequential(*(FactorizedResidual(128, dropout=0.3, dilation=rate) for rate in (2, 4, 8, 16)))


def plain(channels: int) -> nn.Sequential:
    """The decoder's two blocks after each upsampling."""
    return nn.Sequential(FactorizedResidual(channels), FactorizedResidual(channels))


class ERFNet(SegmentationNetwork):
    """e1 is the first downsampling, e2 the blocks at stride 4; at stride 8, e3 is the downsampling, e4 and e5 are the
    two rounds of dilated blocks.

    d5 and d4 are the first upsampling and its blocks (stride 4), d3 and d2 the second and its blocks (stride 2).
    2.06 M parameters. Images are padded to a multiple of 8, the logits cropped back; the stages keep the padded sizes.
    """

    encoder_channels = (16, 64, 128, 128, 128)
    decoder_channels = (64, 64, 16, 16)
    encoder_strides, decoder_strides = (2, 4, 8, 8, 8), (4, 4, 2, 2)

    def __init__(self, classes: int, pretrained: bool | Path = False) -> None:
        refuse_imagenet(pretrained, "erfnet", instead="mobilenet_v2")
        super().__init__(classes)
        self.encoder = nn.ModuleList(
            [
                down(1, 16),
                nn.Sequential(down(16, 64), *(FactorizedResidual(64, dropout=0.03) for _ in range(5))),
                down(64, 128),
                dilated(),
                dilated(),
            ]
        )
        self.decoder = nn.ModuleList([up(128, 64), plain(64), up(64, 16), plain(16)])
        self.head = nn.ConvTranspose2d(16, classes, kernel_size=2, stride=2)

    def features(self, image: Tensor) -> Features:
        height, width = image.shape[-2:]
        x = pad_to_multiple(image, 8)
        stages = []
        for stage in (*self.encoder, *self.decoder):
            x = stage(x)
            stages.append(x)
        return Features(tuple(stages[:5]), tuple(stages[5:]), self.head(x)[..., :height, :width])
