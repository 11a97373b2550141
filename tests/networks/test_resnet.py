"""ResNet encoders, their students, and ImageNet weights."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision

from engine.cost import parameters_and_macs
from networks import build
from networks.resnet import OutputStride, ResNetEncoder
from tests.contracts.networks import NetworkContract, StageContract
from tests.golden.arrays import array
from tests.golden.layers import assert_close
from utils.errors import UserError

RESNET = (64, 64, 128, 256, 512)
BOTTLENECK = (64, 256, 512, 1024, 2048)
OS16, OS8 = (2, 4, 8, 16, 16), (2, 4, 8, 8, 8)


class TestResNet18(NetworkContract):
    name, encoder = "resnet_18", RESNET

    def test_costs_what_the_published_student_does(self) -> None:
        parameters, macs = parameters_and_macs(build(self.name, classes=2), size=384)
        assert parameters == pytest.approx(11.17e6, abs=0.005e6)
        assert macs == pytest.approx(5.10e9, abs=0.005e9)

    def test_its_stages_stand_for_a_decoder(self) -> None:
        features = self.network().features(torch.randn(2, 1, 64, 64))
        assert all(d is e for d, e in zip(features.decoder, features.encoder[3::-1], strict=True))


class TestResNet34(NetworkContract):
    name, encoder, exported_as = "resnet_34", RESNET, "resnet_18"


class TestResNet50(NetworkContract):
    name, encoder, exported_as = "resnet_50", BOTTLENECK, "resnet_18"


class TestResNet18OS8(NetworkContract):
    name, encoder, strides = "resnet_18_os8", RESNET, OS8


class TestResNet18OS16(StageContract):
    name, encoder, strides = "resnet_18_os16", RESNET, OS16


class TestResNet34OS8(StageContract):
    name, encoder, strides = "resnet_34_os8", RESNET, OS8


class TestResNet34OS16(StageContract):
    name, encoder, strides = "resnet_34_os16", RESNET, OS16


class TestResNet50OS8(StageContract):
    name, encoder, strides = "resnet_50_os8", BOTTLENECK, OS8


class TestResNet50OS16(StageContract):
    name, encoder, strides = "resnet_50_os16", BOTTLENECK, OS16


@pytest.mark.parametrize("stride", [8, 16])
def test_dilation_is_where_torchvision_has_it(stride: OutputStride) -> None:
    """And weights of the usual network fit: names and shapes are the same."""
    replaced = {8: [False, True, True], 16: [False, False, True]}[stride]
    torch.manual_seed(0)
    rgb = torchvision.models.resnet50(replace_stride_with_dilation=replaced).eval()
    encoder, usual = ResNetEncoder(50, output_stride=stride).eval(), ResNetEncoder(50)
    state = {name: value for name, value in rgb.state_dict().items() if not name.startswith("fc.")}
    usual.load_state_dict({**state, "conv1.weight": state["conv1.weight"].sum(dim=1, keepdim=True)})
    encoder.load_state_dict(usual.state_dict())
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        x = rgb.maxpool(rgb.relu(rgb.bn1(rgb.conv1(image.expand(-1, 3, -1, -1)))))
        expected = rgb.layer4(rgb.layer3(rgb.layer2(rgb.layer1(x))))
        assert_close(array(encoder(image)[-1]), array(expected), rel=1e-4)


@pytest.fixture
def imagenet_file(tmp_path: Path) -> Path:
    """Weights as torchvision publishes them, but random."""
    torch.manual_seed(1)
    path = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    return path


class TestPretrained:
    def test_grey_network_equals_the_rgb_one_on_a_repeated_image(self, imagenet_file: Path) -> None:
        rgb = torchvision.models.resnet18()
        rgb.load_state_dict(torch.load(imagenet_file, weights_only=True))
        rgb.fc = torch.nn.Identity()
        image = torch.randn(2, 1, 64, 64)
        with torch.no_grad():
            e5 = ResNetEncoder(18, imagenet_file).eval()(image)[-1]
            expected = rgb.eval()(image.expand(-1, 3, -1, -1))
        assert_close(array(e5.mean(dim=(2, 3))), array(expected), rel=1e-4)

    @pytest.mark.parametrize("name", ["resnet_18", "unet_r18"])
    def test_networks_take_a_file(self, name: str, imagenet_file: Path) -> None:
        weights = torch.load(imagenet_file, weights_only=True)
        state = build(name, classes=2, pretrained=imagenet_file).state_dict()
        assert torch.equal(state["encoder.layer4.1.conv2.weight"], weights["layer4.1.conv2.weight"])

    def test_weights_of_another_depth(self, imagenet_file: Path) -> None:
        with pytest.raises(UserError, match=r"resnet18\.pth: does not fit torchvision's resnet34"):
            build("raunet", classes=2, pretrained=imagenet_file)

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"none\.pth: no such file"):
            build("resnet_18", classes=2, pretrained=tmp_path / "none.pth")

    def test_damaged_file(self, tmp_path: Path) -> None:
        (tmp_path / "bad.pth").write_bytes(b"not weights")
        with pytest.raises(UserError, match=r"bad\.pth: is not a checkpoint that can be read"):
            build("resnet_18", classes=2, pretrained=tmp_path / "bad.pth")

    def test_no_internet_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            raise URLError("no route to host")

        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
        with pytest.raises(UserError, match=r"resnet18-\w+\.pth: cannot be downloaded .* give the file's path"):
            build("resnet_18", classes=2, pretrained=True)
