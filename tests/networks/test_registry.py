"""Every network under one contract; then what only one of them promises."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision

from networks import NETWORKS, build
from networks.count import count
from networks.raunet import AugmentedAttention
from networks.resnet import ResNetEncoder
from tests.contracts.networks import NetworkContract
from tests.golden.features import Array, project_array
from utils.errors import UserError
from utils.layers import BatchNorm

RESNET = (64, 64, 128, 256, 512)
BOTTLENECK = (64, 256, 512, 1024, 2048)


class TestRAUNet(NetworkContract):
    name, encoder, decoder = "raunet", RESNET, (256, 128, 64, 64)

    def test_costs_what_the_paper_says(self) -> None:
        parameters, macs = count(self.network(), size=384)
        assert parameters == pytest.approx(22.1e6, abs=0.05e6)
        assert macs == pytest.approx(13.0e9, abs=0.05e9)


class TestResNet18(NetworkContract):
    name, encoder, decoder = "resnet_18", RESNET, RESNET[3::-1]

    def test_costs_what_the_published_student_does(self) -> None:
        parameters, macs = count(build(self.name, classes=2), size=384)
        assert parameters == pytest.approx(11.17e6, abs=0.005e6)
        assert macs == pytest.approx(5.10e9, abs=0.005e9)

    def test_its_stages_stand_for_a_decoder(self) -> None:
        features = self.network().features(torch.randn(2, 1, 64, 64))
        assert all(d is e for d, e in zip(features.decoder, features.encoder[3::-1], strict=True))


class TestResNet34(NetworkContract):
    name, encoder, decoder = "resnet_34", RESNET, RESNET[3::-1]


class TestResNet50(NetworkContract):
    name, encoder, decoder = "resnet_50", BOTTLENECK, BOTTLENECK[3::-1]


class TestUNet(NetworkContract):
    name, encoder, decoder = "unet", (64, 128, 256, 512, 1024), (512, 256, 128, 64)
    first_stride = 1


class TestUNetR18(NetworkContract):
    name, encoder, decoder = "unet_r18", RESNET, (256, 128, 64, 32)


class TestUNetR50(NetworkContract):
    name, encoder, decoder = "unet_r50", BOTTLENECK, (256, 128, 64, 32)


def test_every_network_is_under_the_contract() -> None:
    for path in Path(__file__).parent.glob("test_*.py"):
        import_module(f"tests.networks.{path.stem}")
    assert set(NETWORKS) <= {test.name for test in NetworkContract.__subclasses__()}


def test_wrong_name_prints_the_names_that_exist() -> None:
    with pytest.raises(UserError, match=r"resnet_19.*raunet, resnet_18"):
        build("resnet_19", classes=2)


def test_batch_norm_of_one_value_uses_the_running_statistics() -> None:
    norm = BatchNorm(3)
    norm(torch.randn(4, 3, 5, 5))
    mean = norm.running_mean.clone()
    value = torch.randn(1, 3, 1, 1)
    trained = norm(value)
    assert torch.equal(norm.running_mean, mean)
    assert torch.equal(trained, norm.eval()(value))


def test_batch_norm_of_more_values_is_the_usual_one() -> None:
    values = torch.randn(2, 3, 1, 1)
    torch.testing.assert_close(BatchNorm(3)(values), torch.nn.BatchNorm2d(3)(values))


def test_augmented_attention_weighs_the_skip_by_both_maps() -> None:
    torch.manual_seed(0)
    module = AugmentedAttention(4).eval()
    maps = [torch.randn(2, 4, 3, 5) for _ in range(2)]
    high, low = (m.double().numpy() for m in maps)

    def conv_bn_relu(x: Array, block: torch.nn.Module) -> Array:
        weight = block[0].weight.detach().double().numpy()[:, :, 0, 0]
        return np.maximum(np.einsum("oc,bchw->bohw", weight, x) / np.sqrt(1 + 1e-5), 0)

    pooled_high, pooled_low = (x.mean(axis=(2, 3), keepdims=True) for x in (high, low))
    mixed = conv_bn_relu(pooled_high, module.high) + conv_bn_relu(pooled_low, module.low)
    exponential = np.exp(project_array(mixed, module.weight[0]))
    weight = exponential / exponential.sum(axis=1, keepdims=True)
    expected = high + weight * conv_bn_relu(low, module.skip)
    np.testing.assert_allclose(module(*maps).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


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
        torch.testing.assert_close(e5.mean(dim=(2, 3)), expected, rtol=1e-4, atol=1e-5)

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
        with pytest.raises(UserError, match=r"bad\.pth: cannot be read"):
            build("resnet_18", classes=2, pretrained=tmp_path / "bad.pth")

    def test_plain_unet_has_none(self) -> None:
        with pytest.raises(UserError, match="choose unet_r18"):
            build("unet", classes=2, pretrained=True)

    def test_no_internet_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            raise URLError("no route to host")

        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
        with pytest.raises(UserError, match=r"resnet18-\w+\.pth: cannot be downloaded .* give the file's path"):
            build("resnet_18", classes=2, pretrained=True)
