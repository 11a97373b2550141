"""SegResNet on blocks of slices."""

from __future__ import annotations

import pytest
import torch

from networks import build
from networks.contract import VolumetricNetwork
from networks.segresnet3d import SegResNet3D
from tests.contracts.networks import StageContract
from utils.errors import UserError


class TestSegResNet3D(StageContract):
    name, encoder, decoder = "segresnet3d", (16, 32, 64, 64, 64), (32, 32, 32, 16)
    strides, decoder_strides = (2, 4, 8, 8, 8), (4, 4, 4, 2)
    depth = (8,)


class TestSegResNet3DW16(StageContract):
    name, encoder, decoder = "segresnet3d_w16", (32, 64, 128, 128, 128), (64, 64, 64, 32)
    strides, decoder_strides = TestSegResNet3D.strides, TestSegResNet3D.decoder_strides
    depth = (8,)


class TestSegResNet3DW32(StageContract):
    name, encoder, decoder = "segresnet3d_w32", (64, 128, 256, 256, 256), (128, 128, 128, 64)
    strides, decoder_strides = TestSegResNet3D.strides, TestSegResNet3D.decoder_strides
    depth = (8,)


@pytest.fixture(scope="module")
def network() -> SegResNet3D:
    torch.manual_seed(0)
    network = build("segresnet3d", classes=3)
    assert isinstance(network, SegResNet3D)
    return network.eval()


@torch.no_grad()
def test_logits_are_those_of_monai(network: SegResNet3D) -> None:
    image = torch.randn(2, 1, 8, 16, 24)
    assert torch.equal(network(image), network.model(image))


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 17, 20), (5, 16, 9), (16, 8, 8)])
def test_logits_have_the_size_of_any_block(network: SegResNet3D, size: tuple[int, int, int]) -> None:
    assert network(torch.randn(1, 1, *size)).shape == (1, 3, *size)


@torch.no_grad()
def test_missing_slices_are_copies_of_the_last(network: SegResNet3D) -> None:
    image = torch.randn(1, 1, 5, 16, 16)
    longer = torch.cat([image, image[:, :, -1:].expand(-1, -1, 3, -1, -1)], dim=2)
    torch.testing.assert_close(network(image), network(longer)[:, :, :5])


def test_every_parameter_learns_from_one_block() -> None:
    torch.manual_seed(0)
    network = build("segresnet3d", classes=2).train()
    network(torch.randn(1, 1, 4, 16, 16)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in network.parameters())


def test_says_that_it_sees_blocks(network: SegResNet3D) -> None:
    assert isinstance(network, VolumetricNetwork) and network.channels.block == network.block == 16
    assert build("resnet_18", classes=2).channels.block == 0


def test_has_no_imagenet_weights() -> None:
    with pytest.raises(UserError, match="segresnet3d has no ImageNet weights"):
        build("segresnet3d", classes=2, pretrained=True)
