"""Networks: one file per architecture, all of them under the feature contract of `networks.contract`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import UserError
from utils.registry import lookup, match_name

if TYPE_CHECKING:
    from networks.contract import SegmentationNetwork

LARGEST_BLOCK = 1024
"""Slices; more than nearly all volumes have."""

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
    "segresnet3d": "networks.segresnet3d:SegResNet3D",
    "segresnet3d_w16": "networks.segresnet3d:segresnet3d_w16",
    "segresnet3d_w32": "networks.segresnet3d:segresnet3d_w32",
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


def see_blocks(network: SegmentationNetwork, name: str, block: int | None) -> SegmentationNetwork:
    """The same network, which sees blocks of that many slices; None leaves it as it is.

    UserError for a network of single slices, and for a number that no block has.
    """
    if block is None:
        return network
    if not network.block:
        raise UserError(f"{name} sees single slices, not blocks of {block}; leave --block out, or choose segresnet3d")
    if not (isinstance(block, int) and 2 <= block <= LARGEST_BLOCK):
        raise UserError(f"--block {block}: must be a whole number from 2 to {LARGEST_BLOCK}")
    network.block = block
    return network


def refuse_blocks(network: SegmentationNetwork, name: str, path: Path, verb: str) -> None:
    """UserError for a volumetric network, which is in the file and cannot be what the verb says."""
    if network.block:
        raise UserError(f"{path}: {name} sees blocks of slices, and cannot be {verb}; give a student of it")
