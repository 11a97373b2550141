"""U-Net, plain and with ResNet encoders."""

from __future__ import annotations

import pytest

from networks import build
from tests.contracts.networks import NetworkContract
from utils.errors import UserError


class TestUNet(NetworkContract):
    name, encoder, decoder = "unet", (64, 128, 256, 512, 1024), (512, 256, 128, 64)
    strides = (1, 2, 4, 8, 16)


class TestUNetR18(NetworkContract):
    name, encoder, decoder = "unet_r18", (64, 64, 128, 256, 512), (256, 128, 64, 32)


class TestUNetR50(NetworkContract):
    name, encoder, decoder = "unet_r50", (64, 256, 512, 1024, 2048), (256, 128, 64, 32)
    exported_as = "unet_r18"


def test_plain_unet_has_no_imagenet_weights() -> None:
    with pytest.raises(UserError, match="choose unet_r18"):
        build("unet", classes=2, pretrained=True)
