"""Networks: one file per architecture, all of them under the feature contract of `networks.contract`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from utils.registry import lookup

if TYPE_CHECKING:
    from networks.contract import SegmentationNetwork

NETWORKS: dict[str, str] = {
    "raunet": "networks.raunet:RAUNet",
    "resnet_18": "networks.resnet:resnet_18",
    "resnet_34": "networks.resnet:resnet_34",
    "resnet_50": "networks.resnet:resnet_50",
    "unet": "networks.unet:unet",
    "unet_r18": "networks.unet:unet_r18",
    "unet_r50": "networks.unet:unet_r50",
}


def build(name: str, classes: int, pretrained: bool | Path = False) -> SegmentationNetwork:
    """A new network with `classes` output channels, the background among them.

    pretrained: True takes torchvision's ImageNet weights for the encoder, a path a state dict in a file.
    UserError for an unknown name, or for weights that cannot be had.
    """
    network: SegmentationNetwork = lookup(NETWORKS, "network", name)(classes, pretrained)
    return network
