"""The two 2D networks that nnU-Net trains, with its names of parameters, so that its weights fit.

F. Isensee, P. F. Jaeger, S. A. A. Kohl, J. Petersen, K. H. Maier-Hein: nnU-Net: a self-configuring method for deep
learning-based biomedical image segmentation, Nature Methods 18, 2021; with residual blocks: F. Isensee et al.: nnU-Net
Revisited: A Call for Rigorous Validation in 3D Medical Image Segmentation, MICCAI 2024 (arXiv 2404.09556).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from networks.contract import STRIDES, Features, SegmentationNetwork, pad_to_multiple

Pair = tuple[int, int]


@dataclass(frozen=True)
class Architecture:
    """A network as plans.json describes it; the sequences have an entry for each stage, from fine to coarse.

    blocks: convolutions of an encoder stage, or residual blocks; decoder_convs: from coarse to fine, one entry less.
    negative_slope: of the leaky ReLU, 0 for a plain one; batch_norm: in place of instance norm.
    """

    residual: bool
    features: tuple[int, ...]
    kernels: tuple[Pair, ...]
    strides: tuple[Pair, ...]
    blocks: tuple[int, ...]
    decoder_convs: tuple[int, ...]
    conv_bias: bool = True
    batch_norm: bool = False
    norm_eps: float = 1e-5
    norm_affine: bool = True
    negative_slope: float = 0.01

    def norm(self, channels: int) -> nn.Module:
        kind = nn.BatchNorm2d if self.batch_norm else nn.InstanceNorm2d
        return kind(channels, eps=self.norm_eps, affine=self.norm_affine)

    def activation(self) -> nn.Module:
        return nn.LeakyReLU(self.negative_slope, inplace=True)


class ConvNorm(nn.Module):
    """Convolution that keeps the size but for its stride, norm, and the activation where there is one."""

    def __init__(
        self,
        plan: Architecture,
        inputs: int,
        outputs: int,
        kernel: Pair,
        stride: Pair = (1, 1),
        *,
        bias: bool,
        activated: bool = True,
    ) -> None:
        super().__init__()
        padding = (kernel[0] - 1) // 2, (kernel[1] - 1) // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=bias)
        self.norm = plan.norm(outputs)
        self.nonlin = plan.activation() if activated else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.nonlin(self.norm(self.conv(x)))
        return activated


class StackedConvs(nn.Module):
    """`count` convolutions one after another, the first with the stride."""

    def __init__(
        self, plan: Architecture, count: int, inputs: int, outputs: int, kernel: Pair, stride: Pair = (1, 1)
    ) -> None:
        super().__init__()
        bias = plan.conv_bias
        first = ConvNorm(plan, inputs, outputs, kernel, stride, bias=bias)
        others = (ConvNorm(plan, outputs, outputs, kernel, bias=bias) for _ in range(count - 1))
        self.convs = nn.Sequential(first, *others)

    def forward(self, x: Tensor) -> Tensor:
        convolved: Tensor = self.convs(x)
        return convolved


class ResidualBlock(nn.Module):
    """Two convolutions beside a skip, which is pooled where they have a stride and projected where channels change.

    T. He et al.: Bag of Tricks for Image Classification with Convolutional Neural Networks, CVPR 2019 (ResNet-D).
    """

    def __init__(self, plan: Architecture, inputs: int, outputs: int, kernel: Pair, stride: Pair = (1, 1)) -> None:
        super().__init__()
        self.conv1 = ConvNorm(plan, inputs, outputs, kernel, stride, bias=plan.conv_bias)
        self.conv2 = ConvNorm(plan, outputs, outputs, kernel, bias=plan.conv_bias, activated=False)
        self.nonlin2 = plan.activation()
        skip: list[nn.Module] = []
        if stride != (1, 1):
            skip.append(nn.AvgPool2d(stride, stride))
        if inputs != outputs:
            skip.append(ConvNorm(plan, inputs, outputs, (1, 1), bias=False, activated=False))
        self.skip = nn.Sequential(*skip)

    def forward(self, x: Tensor) -> Tensor:
        joined: Tensor = self.nonlin2(self.conv2(self.conv1(x)) + self.skip(x))
        return joined


class StackedResidualBlocks(nn.Module):
    """`count` residual blocks one after another, the first with the stride."""

    def __init__(self, plan: Architecture, count: int, inputs: int, outputs: int, kernel: Pair, stride: Pair) -> None:
        super().__init__()
        first = ResidualBlock(plan, inputs, outputs, kernel, stride)
        self.blocks = nn.Sequential(first, *(ResidualBlock(plan, outputs, outputs, kernel) for _ in range(count - 1)))

    def forward(self, x: Tensor) -> Tensor:
        joined: Tensor = self.blocks(x)
        return joined


class Encoder(nn.Module):
    """All stages, from fine to coarse; with residual blocks, a convolution before them."""

    def __init__(self, plan: Architecture) -> None:
        super().__init__()
        self.stem: nn.Module = nn.Identity()
        inputs = 1
        if plan.residual:
            inputs = plan.features[0]
            self.stem = StackedConvs(plan, 1, 1, inputs, plan.kernels[0])
        widths = (inputs, *plan.features[:-1])
        stages = zip(plan.blocks, widths, plan.features, plan.kernels, plan.strides, strict=True)
        self.stages = nn.Sequential(
            *(
                StackedResidualBlocks(plan, *each) if plan.residual else nn.Sequential(StackedConvs(plan, *each))
                for each in stages
            )
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [self.stem(x)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]


class Decoder(nn.Module):
    """All stages, from coarse to fine, each with a head; the last one's gives the logits.

    The others are nnU-Net's deep supervision while it trains; they are there because its weights are.
    """

    def __init__(self, plan: Architecture, classes: int) -> None:
        super().__init__()
        coarse_to_fine = list(pairwise(reversed(plan.features)))
        strides = plan.strides[:0:-1]
        kernels = plan.kernels[-2::-1]
        self.transpconvs = nn.ModuleList(
            nn.ConvTranspose2d(below, skip, stride, stride, bias=plan.conv_bias)
            for (below, skip), stride in zip(coarse_to_fine, strides, strict=True)
        )
        self.stages = nn.ModuleList(
            StackedConvs(plan, count, 2 * skip, skip, kernel)
            for count, (_, skip), kernel in zip(plan.decoder_convs, coarse_to_fine, kernels, strict=True)
        )
        self.seg_layers = nn.ModuleList(nn.Conv2d(skip, classes, kernel_size=1) for _, skip in coarse_to_fine)

    def forward(self, skips: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """The outputs of the stages, and the logits."""
        x, outputs = skips[-1], []
        for up, stage, skip in zip(self.transpconvs, self.stages, reversed(skips[:-1]), strict=True):
            x = stage(torch.cat((up(x), skip), dim=1))
            outputs.append(x)
        return outputs, self.seg_layers[-1](x)


class NNUNet(SegmentationNetwork):
    """PlainConvUNet or ResidualEncoderUNet: e1..e5 are the stages at strides 2 to 32, d5..d2 the decoder's at 16 to 2.

    Where there is no stage of a stride, the next finer one stands for it, as e4 for e5 in a network that ends at stride
    16; of a stage whose strides along rows and columns differ, the larger counts. Images are padded with zeros to a
    multiple of the coarsest strides, the logits cropped back; the stages keep the padded sizes.
    """

    def __init__(self, plan: Architecture, classes: int) -> None:
        super().__init__(classes)
        self.plan = plan
        self.encoder = Encoder(plan)
        self.decoder = Decoder(plan, classes)
        self.strides = tuple(accumulate(plan.strides, lambda fine, step: (fine[0] * step[0], fine[1] * step[1])))
        largest = [max(stride) for stride in self.strides]
        self.encoder_picks = [_stage_at(largest, stride) for stride in STRIDES]
        self.decoder_picks = [_stage_at(largest[:-1], stride) for stride in STRIDES[3::-1]]
        """Stages of the encoder, of whose sizes the decoder's outputs are."""
        self.encoder_channels = tuple(plan.features[i] for i in self.encoder_picks)
        self.decoder_channels = tuple(plan.features[i] for i in self.decoder_picks)
        self.encoder_strides = tuple(largest[i] for i in self.encoder_picks)
        self.decoder_strides = tuple(largest[i] for i in self.decoder_picks)

    def features(self, image: Tensor) -> Features:
        height, width = image.shape[-2:]
        stages = self.encoder(pad_to_multiple(image, max(map(max, self.strides))))
        outputs, logits = self.decoder(stages)
        encoder = tuple(stages[i] for i in self.encoder_picks)
        decoder = tuple(outputs[len(outputs) - 1 - i] for i in self.decoder_picks)
        return Features(encoder, decoder, logits[..., :height, :width])


def _stage_at(strides: Sequence[int], stride: int) -> int:
    """The coarsest stage that is no coarser than `stride`."""
    return max(i for i, each in enumerate(strides) if each <= stride)


def own_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """nnU-Net's state dict without what it holds twice.

    Its decoder has the encoder as a part of itself, and every block a list of its layers beside their names.
    """
    return {
        name: value
        for name, value in weights.items()
        if not name.startswith("decoder.encoder.") and ".all_modules." not in name
    }
