"""nnU-Net's two networks: the values that its own package gives, and the feature contract."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from networks.contract import Channels
from networks.nnunet import NNUNet, own_weights
from networks.nnunet_plan import read_architecture
from tests.networks import nnunet_reference
from tests.networks.nnunet_reference import CLASSES, fill, picture

PACKAGE = "HLFD_NNUNET_PYTHON"
"""The environment variable with a Python that has nnU-Net, which this project's own cannot have beside it."""
NORM = {"conv_bias": True, "norm_op_kwargs": {"eps": 1e-5, "affine": True}}
BARE = {"conv_bias": False, "norm_op_kwargs": {"eps": 1e-3, "affine": False}}


def description(residual: bool, size: tuple[int, int], blocks: list[int], **kwargs: Any) -> dict[str, Any]:
    kwargs["n_stages"] = len(blocks)
    kwargs["n_blocks_per_stage" if residual else "n_conv_per_stage"] = blocks
    return {"class": "ResidualEncoderUNet" if residual else "PlainConvUNet", "size": size, "kwargs": kwargs}


NETWORKS = {
    "plain": description(
        False, (64, 96), [2, 1, 2, 2, 1, 2], **NORM, features_per_stage=[2, 3, 4, 5, 6, 7], kernel_sizes=[[3, 3]] * 6,
        strides=[[1, 1]] + [[2, 2]] * 5, n_conv_per_stage_decoder=[2, 1, 2, 1, 1],
    ),
    "residual": description(
        True, (128, 64), [1, 2, 1, 1, 2, 1, 1], **NORM, features_per_stage=[2, 3, 4, 4, 5, 6, 6],
        kernel_sizes=[[3, 3]] * 7, strides=[[1, 1]] + [[2, 2]] * 6, n_conv_per_stage_decoder=[1] * 6,
    ),
    "short": description(
        False, (32, 64), [1, 2, 1, 1, 2], **BARE, features_per_stage=[2, 3, 4, 5, 6],
        kernel_sizes=[[1, 3], [3, 3], [3, 3], [3, 3], [5, 3]], strides=[[1, 1], [1, 2], [2, 2], [2, 2], [2, 2]],
        n_conv_per_stage_decoder=[1, 1, 2, 1],
    ),
    "short_residual": description(
        True, (32, 64), [2, 1, 1, 2], **{**NORM, "conv_bias": False}, features_per_stage=[3, 3, 4, 5],
        kernel_sizes=[[3, 3], [3, 5], [3, 3], [3, 3]], strides=[[1, 1], [1, 2], [2, 2], [2, 2]],
        n_conv_per_stage_decoder=[1, 2, 1],
    ),
}  # fmt: skip
GOLDEN: dict[str, tuple[list[float], list[float], list[float]]] = {
    "plain": (
        [0.8626156, 0.2533033, -2.0355704],
        [0.9013553, 0.1940890, -1.9598135],
        [1.4832908, -0.4160457, -1.3619947],
    ),
    "residual": (
        [-2.0805262, 0.0466338, 0.0748345],
        [-1.9760890, -0.0163627, 0.0922070],
        [-2.8894591, 0.8659887, -0.7005345],
    ),
    "short": (
        [0.3099927, 0.7763609, 0.6729563],
        [-0.4231621, 1.4854001, 0.0351156],
        [-0.4378493, 1.4957976, 0.0296982],
    ),
    "short_residual": (
        [-0.2878234, 0.1411149, 1.2317990],
        [2.1506987, 2.2774632, 0.4082613],
        [-2.5075169, -1.7015302, 2.0585346],
    ),
}
"""Of the logits that nnU-Net's package gave (dynamic-network-architectures 0.4.4): the mean of each class, and the
values at [1, :, 5, 7] and [0, :, -1, -3]."""


def build(name: str) -> NNUNet:
    kwargs = NETWORKS[name]["kwargs"]
    named = {
        "conv_op": "torch.nn.modules.conv.Conv2d",
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    where = f"dynamic_network_architectures.architectures.unet.{NETWORKS[name]['class']}"
    plan = read_architecture({"architecture": {"network_class_name": where, "arch_kwargs": {**named, **kwargs}}})
    network = NNUNet(plan, CLASSES).eval()
    fill(network)
    return network


def answer(network: NNUNet, image: Tensor) -> Tensor:
    with torch.no_grad():
        return network(image)


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_those_of_nnunets_package(name: str) -> None:
    logits = answer(build(name), picture(*NETWORKS[name]["size"]))
    found = (logits.double().mean(dim=(0, 2, 3)), logits[1, :, 5, 7], logits[0, :, -1, -3])
    for values, expected in zip(found, GOLDEN[name], strict=True):
        torch.testing.assert_close(values.double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-5)


def test_weights_of_nnunets_package_give_its_logits_and_stages(tmp_path: Path) -> None:
    python = os.environ.get(PACKAGE)
    if not python:
        pytest.skip(f"{PACKAGE} names no Python that has nnU-Net (python -m venv V; V/bin/pip install nnunetv2)")
    for name, about in NETWORKS.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(about))
    subprocess.run([python, nnunet_reference.__file__, tmp_path], check=True)
    for name in NETWORKS:
        reference = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        network = build(name)
        for parameter in network.parameters():
            torch.nn.init.zeros_(parameter)
        network.load_state_dict(own_weights(reference["weights"]))
        with torch.no_grad():
            features = network.features(reference["image"])
        torch.testing.assert_close(features.logits, reference["logits"], rtol=0, atol=1e-5)
        for place, maps in zip(network.encoder_picks, features.encoder, strict=True):
            torch.testing.assert_close(maps, reference["stages"][place], rtol=0, atol=1e-5)


class TestFeatureContract:
    @pytest.mark.parametrize(
        ("name", "expected"),
        {
            "plain": Channels((3, 4, 5, 6, 7), (6, 5, 4, 3), CLASSES, decoder_strides=(16, 8, 4, 2)),
            # It goes on to stride 64, and has a decoder output at 32, which are no stages of the contract.
            "residual": Channels((3, 4, 4, 5, 6), (5, 4, 4, 3), CLASSES, decoder_strides=(16, 8, 4, 2)),
            # Where strides differ, the larger counts: (8, 16) is 16, and is the coarsest.
            "short": Channels((3, 4, 5, 6, 6), (5, 5, 4, 3), CLASSES, (2, 4, 8, 16, 16), (8, 8, 4, 2)),
            "short_residual": Channels((3, 4, 5, 5, 5), (4, 4, 4, 3), CLASSES, (2, 4, 8, 8, 8), (4, 4, 4, 2)),
        }.items(),
    )
    def test_stages_are_those_at_strides_2_to_32_or_the_next_finer(self, name: str, expected: Channels) -> None:
        network = build(name)
        assert network.channels.stages == expected.stages
        image = picture(*NETWORKS[name]["size"])
        with torch.no_grad():
            features = network.features(image)
        for stage in network.channels.stages:
            maps = features.stage(stage.name)
            assert maps.shape[1] == stage.channels
            sides = [whole / part for whole, part in zip(image.shape[2:], maps.shape[2:], strict=True)]
            assert max(sides) == stage.stride
        own = {id(maps) for maps in features.encoder}
        assert all(id(maps) not in own for maps in features.decoder)

    def test_decoder_stages_decide_the_logits_and_encoder_stages_feed_them(self) -> None:
        network, image = build("plain"), picture(64, 96)
        with torch.no_grad():
            features = network.features(image)
            last = network.decoder.stages[-1](
                torch.cat((network.decoder.transpconvs[-1](features.stage("d2")), network.encoder(image)[0]), dim=1)
            )
            torch.testing.assert_close(network.decoder.seg_layers[-1](last), features.logits)

    @pytest.mark.parametrize("size", [(65, 47), (70, 129)])
    def test_logits_have_the_size_of_any_image(self, size: tuple[int, int]) -> None:
        image = picture(*size)
        network = build("plain")
        rows, columns = (-(-side // 32) * 32 for side in size)
        padded = torch.zeros(2, 1, rows, columns)
        padded[..., : size[0], : size[1]] = image
        assert torch.equal(answer(network, image), answer(network, padded)[..., : size[0], : size[1]])


def test_weights_that_nnunet_saves_twice_are_left_out() -> None:
    value = torch.zeros(1)
    names = ["encoder.stages.0.0.convs.0.conv.bias", "decoder.seg_layers.0.bias"]
    twice = ["decoder.encoder.stages.0.0.convs.0.conv.bias", "encoder.stages.0.0.convs.0.all_modules.0.bias"]
    assert list(own_weights(dict.fromkeys([*names, *twice], value))) == names
