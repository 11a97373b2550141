"""SegResNet on blocks of slices, MONAI's.

A. Myronenko: 3D MRI Brain Tumor Segmentation Using Autoencoder Regularization, BrainLes at MICCAI 2018
(arXiv 1810.11654), without the autoencoder; M. J. Cardoso et al.: MONAI: An Open-Source Framework for Deep Learning in
Healthcare, 2022 (arXiv 2211.02701).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch.nn.functional as F
from monai.networks.nets.segresnet import SegResNet
from torch import Tensor

from networks.contract import STRIDES, Features, VolumetricNetwork, pad_to_multiple
from networks.pretrained import refuse_imagenet
from networks.stages import assign

ENCODER_STRIDES = (1, 2, 4, 8)
DECODER_STRIDES = (4, 2, 1)
"""Of MONAI's own maps, along rows, columns and slices alike."""


class SegResNet3D(VolumetricNetwork):
    """Four levels of residual blocks with group norm; the decoder adds the encoder's maps. `filters` at full size.

    It has four encoder and three decoder maps, of which the nearest by stride are the stages (`networks.stages`): e1
    and e2 have the strides 2 and 4, e3, e4 and e5 are the map of stride 8; d5, d4 and d3 that of stride 4, d2 has 2.
    Blocks are padded to multiples of 8, with copies of the last slice, and the logits cropped back; the stages keep
    the padded sizes.
    """

    def __init__(self, classes: int, pretrained: bool | Path = False, filters: int = 8) -> None:
        refuse_imagenet(pretrained, "segresnet3d", instead="a network of single slices such as resnet_18")
        super().__init__(classes)
        self.model = SegResNet(spatial_dims=3, init_filters=filters, in_channels=1, out_channels=classes)
        self._encoder_maps = assign(ENCODER_STRIDES, STRIDES)
        self._decoder_maps = assign(DECODER_STRIDES, STRIDES[3::-1])
        self.encoder_strides = tuple(ENCODER_STRIDES[i] for i in self._encoder_maps)
        self.decoder_strides = tuple(DECODER_STRIDES[i] for i in self._decoder_maps)
        # A map of stride s has s times the channels of the first.
        self.encoder_channels = tuple(filters * stride for stride in self.encoder_strides)
        self.decoder_channels = tuple(filters * stride for stride in self.decoder_strides)

    def features(self, image: Tensor) -> Features:
        """image: [B, 1, D, H, W] of any size."""
        depth, height, width = image.shape[-3:]
        deepest = ENCODER_STRIDES[-1]
        padded = F.pad(pad_to_multiple(image, deepest), (0, 0, 0, 0, 0, -depth % deepest), mode="replicate")
        x, encoder = self.model.encode(padded)
        decoder = []
        for up, blocks, skip in zip(self.model.up_samples, self.model.up_layers, encoder[2::-1], strict=True):
            x = blocks(up(x) + skip)
            decoder.append(x)
        logits = self.model.conv_final(x)
        return Features(
            tuple(encoder[i] for i in self._encoder_maps),
            tuple(decoder[i] for i in self._decoder_maps),
            logits[..., :depth, :height, :width],
        )


segresnet3d_w16 = partial(SegResNet3D, filters=16)
segresnet3d_w32 = partial(SegResNet3D, filters=32)
