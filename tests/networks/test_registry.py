"""Every network by its name, under the contract of all."""

from __future__ import annotations

from importlib import import_module
from itertools import combinations
from pathlib import Path

import pytest
import torch

from networks import NETWORKS, build
from tests.contracts.networks import NetworkContract, StageContract
from utils.errors import UserError


def test_every_network_is_under_the_contract() -> None:
    for path in Path(__file__).parent.glob("test_*.py"):
        import_module(f"tests.networks.{path.stem}")
    tests = [*NetworkContract.__subclasses__(), *StageContract.__subclasses__()]
    assert set(NETWORKS) <= {test.name for test in tests if test is not NetworkContract}


def test_wrong_name_prints_the_names_that_exist() -> None:
    with pytest.raises(UserError, match=r"resnet_19.*raunet, .*resnet_18, "):
        build("resnet_19", classes=2)


@pytest.mark.parametrize("name", ["enet", "erfnet", "espnet", "malunet"])
def test_every_stage_is_a_map_of_its_own(name: str) -> None:
    torch.manual_seed(0)
    features = build(name, classes=2).eval().features(torch.randn(1, 1, 32, 32))
    for first, second in combinations((*features.encoder, *features.decoder), 2):
        assert first.shape != second.shape or not torch.equal(first, second)


@pytest.mark.parametrize("name", ["enet", "erfnet"])
def test_dropout_is_random_in_training_and_off_in_evaluation(name: str) -> None:
    torch.manual_seed(0)
    network, image = build(name, classes=2), torch.randn(2, 1, 32, 32)
    assert not torch.equal(network.train()(image), network(image))
    assert torch.equal(network.eval()(image), network(image))


@pytest.mark.parametrize("name", ["enet", "erfnet", "espnet", "malunet"])
def test_networks_without_imagenet_weights_say_so(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} has no ImageNet weights: .* mobilenet_v2"):
        build(name, classes=2, pretrained=True)
