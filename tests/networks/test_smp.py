"""Architectures of segmentation_models_pytorch under the contract of every network, and what is their own."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch

from networks import build, file_label, network_name
from networks.contract import Features
from networks.smp import ARCHITECTURES
from networks.stages import assign
from tests.contracts.networks import NetworkContract
from tests.golden.arrays import array
from tests.golden.layers import assert_close
from utils.errors import UserError

RESNET = (64, 64, 128, 256, 512)


class TestUnetPlusPlus(NetworkContract):
    name, encoder, decoder = "unetplusplus", RESNET, (256, 128, 64, 32)


class TestDeepLabV3Plus(NetworkContract):
    name, encoder, decoder = "deeplabv3plus", RESNET, (256, 256, 256, 256)
    strides, decoder_strides = (2, 4, 8, 16, 16), (16, 4, 4, 4)


class TestPSPNet(NetworkContract):
    name, encoder, decoder = "pspnet", (64, 64, 128, 128, 128), (512, 512, 512, 512)
    strides, decoder_strides = (2, 4, 8, 8, 8), (8, 8, 8, 8)


class TestFPN(NetworkContract):
    name, encoder, decoder = "fpn", RESNET, (256, 256, 256, 128)
    decoder_strides = (16, 8, 4, 4)


class TestSegFormer(NetworkContract):
    name, encoder, decoder = "segformer", (64, 64, 128, 320, 512), (256, 256, 256, 256)
    strides, decoder_strides = (4, 4, 8, 16, 32), (16, 8, 4, 4)


class TestUnetOfMobileNet(NetworkContract):
    name, encoder, decoder = "smp/unet/mobilenet_v2", (16, 24, 32, 96, 1280), (256, 128, 64, 32)


LIGHT = {"segformer": "mit_b0", "dpt": "tu-vit_tiny_patch16_224"}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_are_those_of_the_library(architecture: str) -> None:
    encoder = LIGHT.get(architecture, "resnet18")
    network = build(f"smp/{architecture}/{encoder}", classes=3).eval()
    options = {"dynamic_img_size": True} if architecture == "dpt" else {}
    theirs = smp.create_model(architecture, encoder, encoder_weights=None, in_channels=1, classes=3, **options).eval()
    theirs.load_state_dict(network.model.state_dict(), strict=False)
    image = torch.randn(1, 1, 128, 256)
    with torch.no_grad():
        assert torch.equal(network(image), theirs(image))


class TestStages:
    def test_of_unetplusplus_are_the_nodes_that_its_last_block_is_made_from(self) -> None:
        network = build("smp/unetplusplus/resnet18", classes=2).eval()
        with torch.no_grad():
            features = network.features(torch.randn(1, 1, 64, 64))
            last = network.model.decoder.blocks["x_0_4"](features.decoder[-1])
            assert torch.equal(network.model.segmentation_head(last), features.logits)

    def test_of_fpn_are_not_changed_by_its_dropout(self) -> None:
        network = build("smp/fpn/resnet18", classes=2).train()
        features = network.features(torch.randn(2, 1, 64, 64))
        assert features.decoder[-1].flatten(2).abs().sum(dim=2).ne(0).all()

    def test_of_a_copy_are_its_own(self) -> None:
        """The copy neither writes into the original nor reads from it."""
        network = build("smp/unet/mobilenet_v2", classes=2).eval()
        copy = deepcopy(network)
        for parameter in copy.parameters():
            torch.nn.init.zeros_(parameter)
        with torch.no_grad():
            image = torch.randn(1, 1, 64, 64)
            assert not any(maps.any() for maps in stages(copy.features(image)))
            assert all(maps.any() for maps in stages(network.features(image)))

    def test_survive_compilation_in_one_graph(self) -> None:
        network = build("smp/fpn/resnet18", classes=2).eval()
        compiled = torch.compile(network.features, backend="eager", fullgraph=True)
        image = torch.randn(1, 1, 64, 64)
        with torch.no_grad():
            for ours, plain in zip(stages(compiled(image)), stages(network.features(image)), strict=True):
                assert torch.equal(ours, plain)

    def test_that_stand_for_others_are_announced_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        for _ in range(2):
            build("smp/pan/mobilenet_v2", classes=2)(torch.randn(2, 1, 64, 64))
        build("smp/linknet/resnet18", classes=2)
        (line,) = capsys.readouterr().err.splitlines()
        assert line == "note: smp/pan/mobilenet_v2 has fewer maps than stages: d3 and d2 are one map, of stride 4"


def stages(features: Features) -> tuple[torch.Tensor, ...]:
    return *features.encoder, *features.decoder


@pytest.mark.parametrize(
    ("strides", "wanted", "chosen"),
    [
        ((2, 4, 8, 16, 16), (2, 4, 8, 16, 32), [0, 1, 2, 3, 4]),
        ((4, 8, 16, 32), (2, 4, 8, 16, 32), [0, 0, 1, 2, 3]),
        ((2, 4, 8), (2, 4, 8, 16, 32), [0, 1, 2, 2, 2]),
        ((16, 4), (16, 8, 4, 2), [0, 1, 1, 1]),
    ],
)
def test_stage_takes_the_nearest_map_and_the_finer_of_two(
    strides: tuple[int, ...], wanted: tuple[int, ...], chosen: list[int]
) -> None:
    assert assign(strides, wanted) == chosen


def test_blocks_that_pspnet_never_reaches_are_left_out() -> None:
    network = build("smp/pspnet/resnet18", classes=2)
    assert not list(network.model.encoder.layer3.parameters())
    assert not list(network.model.encoder.layer4.parameters())


class TestNames:
    @pytest.mark.parametrize(
        ("given", "exact"),
        [
            ("smp/UNetPlusPlus/ResNet-18", "smp/unetplusplus/resnet18"),
            ("SMP/deeplab_v3_plus/efficientnet_b0", "smp/deeplabv3plus/efficientnet-b0"),
            ("smp/segformer/MiT-B0", "smp/segformer/mit_b0"),
            ("smp/unet/tu_resnet18.a1_in1k", "smp/unet/tu-resnet18.a1_in1k"),
            ("DeepLabV3-Plus", "deeplabv3plus"),
        ],
    )
    def test_are_forgiving_and_their_exact_form_stays(self, given: str, exact: str) -> None:
        assert network_name(given) == network_name(exact) == exact

    def test_make_no_folders(self) -> None:
        assert file_label("smp/unet/resnet18") == "smp_unet_resnet18"

    def test_short_ones_stand_for_an_exact_pair(self) -> None:
        assert build("fpn", classes=2).name == "smp/fpn/resnet34"

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("smp/unett/resnet18", "'unett': choose one of unet, unetplusplus, .* dpt"),
            ("smp/unet/resnet19", "'resnet19' .* resnet34, efficientnet-b0, .* nearest names are .*resnet18"),
            ("smp/unet", "no encoder ''"),
            ("smp/unetplusplus/mit_b0", "does not exist .*choose another"),
            ("smp/deeplabv3plus/vgg11", "does not exist .*choose another"),
            ("unetplus", "resnet_18, .* smp/<architecture>/<encoder>"),
        ],
    )
    def test_errors_say_what_exists(self, name: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            build(name, classes=2)


class TestPretrained:
    def test_file_of_rgb_weights_gives_the_grey_network_of_a_repeated_image(self, tmp_path: Path) -> None:
        path = tmp_path / "encoder.pth"
        rgb = smp.create_model("fpn", "resnet18", encoder_weights=None).eval()
        torch.save(rgb.encoder.state_dict(), path)
        network = build("smp/fpn/resnet18", classes=2, pretrained=path).eval()
        image = torch.randn(1, 1, 64, 64)
        with torch.no_grad():
            expected = rgb.encoder(image.expand(-1, 3, -1, -1))[1:]
            for ours, theirs in zip(network.features(image).encoder, expected, strict=True):
                assert_close(array(ours), array(theirs), rel=1e-4)

    def test_file_of_another_encoder(self, tmp_path: Path) -> None:
        path = tmp_path / "other.pth"
        torch.save(torch.nn.Linear(2, 2).state_dict(), path)
        with pytest.raises(UserError, match=r"other\.pth: does not fit smp's encoder resnet18"):
            build("smp/fpn/resnet18", classes=2, pretrained=path)

    def test_no_internet_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            raise OSError("no route to host")

        monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", fail)
        with pytest.raises(UserError, match=r"resnet18: cannot be had \(no route to host\); give the path"):
            build("smp/unet/resnet18", classes=2, pretrained=True)
