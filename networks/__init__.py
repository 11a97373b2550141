"""Networks: one file per architecture, all of them under the feature contract of `networks.contract`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from utils.registry import lookup, match_name

if TYPE_CHECKING:
    from networks.contract import SegmentationNetwork

NETWORKS: dict[str, str] = {
    "raunet": "networks.raunet:RAUNet",
    "raunet_os16": "networks.raunet:raunet_os16",
    "raunet_os8": "networks.raunet:raunet_os8",
    "resnet_18": "networks.resnet:resnet_18",
    "resnet_18_os16": "networks.resnet:resnet_18_os16",
    "resnet_18_os8": "networks.resnet:resnet_18_os8",
    "resnet_34": "networks.resnet:resnet_34",
    "resnet_34_os16": "networks.resnet:resnet_34_os16",
    "resnet_34_os8": "networks.resnet:resnet_34_os8",
    "resnet_50": "networks.resnet:resnet_50",
    "resnet_50_os16": "networks.resnet:resnet_50_os16",
    "resnet_50_os8": "networks.resnet:resnet_50_os8",
    "unet": "networks.unet:unet",
    "unet_r18": "networks.unet:unet_r18",
    "unet_r50": "networks.unet:unet_r50",
    "unet_mbv2": "networks.mobilenet:unet_mbv2",
    "mobilenet_v2": "networks.mobilenet:mobilenet_v2",
    "enet": "networks.enet:ENet",
    "erfnet": "networks.erfnet:ERFNet",
    "espnet": "networks.espnet:ESPNet",
    "malunet": "networks.malunet:MALUNet",
    "unetplusplus": "networks.smp:unetplusplus",
    "deeplabv3plus": "networks.smp:deeplabv3plus",
    "pspnet": "networks.smp:pspnet",
    "fpn": "networks.smp:fpn",
    "segformer": "networks.smp:segformer",
}


def network_name(name: str) -> str:
    """The exact form of a name: one of `NETWORKS`, or `smp/<architecture>/<encoder>`; UserError if there is none."""
    if name.lower().startswith("smp/"):
        from networks.smp import full_name

        return full_name(name)
    return match_name("network", name, [*NETWORKS, "smp/<architecture>/<encoder>"])


def file_label(name: str) -> str:
    """A network's name as a part of the names of files and folders."""
    return name.replace("/", "_")


def build(name: str, classes: int, pretrained: bool | Path = False) -> SegmentationNetwork:
    """A new network with `classes` output channels, the background among them.

    pretrained: True takes ImageNet weights for the encoder, a path a state dict in a file.
    UserError for an unknown name, or for weights that cannot be had.
    """
    name = network_name(name)
    network: SegmentationNetwork
    if name not in NETWORKS:
        from networks.smp import smp_network

        network = smp_network(name, classes, pretrained)
    else:
        network = lookup(NETWORKS, "network", name)(classes, pretrained)
    return network
