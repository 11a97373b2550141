"""MobileNetV2, as a student and as the encoder of a U-Net."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision

from engine.cost import parameters_and_macs
from networks import build
from networks.mobilenet import MobileNetV2Encoder
from tests.contracts.networks import NetworkContract
from tests.golden.arrays import array
from tests.golden.layers import assert_close
from utils.errors import UserError

MOBILENET = (16, 24, 32, 96, 320)


class TestMobileNetV2(NetworkContract):
    name, encoder = "mobilenet_v2", MOBILENET

    def test_costs_torchvisions_features_without_what_only_the_classifier_needs(self) -> None:
        features = torchvision.models.mobilenet_v2().features
        expected = sum(p.numel() for p in features[:18].parameters()) - 2 * 32 * 9
        assert parameters_and_macs(build(self.name, classes=2), size=64)[0] == expected + 2 * 320 + 2


class TestUNetMobileNetV2(NetworkContract):
    name, encoder, decoder = "unet_mbv2", MOBILENET, (96, 64, 32, 16)


class TestPretrainedMobileNetV2:
    @pytest.fixture
    def imagenet_file(self, tmp_path: Path) -> Path:
        """Weights as torchvision publishes them, but random."""
        torch.manual_seed(1)
        path = tmp_path / "mobilenet_v2.pth"
        torch.save(torchvision.models.mobilenet_v2().state_dict(), path)
        return path

    def test_grey_network_equals_the_rgb_one_on_a_repeated_image(self, imagenet_file: Path) -> None:
        rgb = torchvision.models.mobilenet_v2()
        rgb.load_state_dict(torch.load(imagenet_file, weights_only=True))
        image = torch.randn(2, 1, 64, 64)
        with torch.no_grad():
            e5 = MobileNetV2Encoder(imagenet_file).eval()(image)[-1]
            expected = rgb.eval().features[:18](image.expand(-1, 3, -1, -1))
        assert_close(array(e5), array(expected), rel=1e-4)

    @pytest.mark.parametrize("name", ["mobilenet_v2", "unet_mbv2"])
    def test_networks_take_a_file(self, name: str, imagenet_file: Path) -> None:
        weights = torch.load(imagenet_file, weights_only=True)
        state = build(name, classes=2, pretrained=imagenet_file).state_dict()
        assert torch.equal(state["encoder.features.17.conv.2.weight"], weights["features.17.conv.2.weight"])

    def test_weights_of_another_network(self, imagenet_file: Path) -> None:
        with pytest.raises(UserError, match=r"mobilenet_v2\.pth: does not fit .*resnet18"):
            build("resnet_18", classes=2, pretrained=imagenet_file)
