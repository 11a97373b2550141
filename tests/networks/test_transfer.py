"""Weights that one network takes from another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from networks import build
from networks.transfer import copy_blocks


def state(name: str, seed: int, classes: int = 2) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return dict(build(name, classes).state_dict())


def taken(name: str, weights: dict[str, Tensor], classes: int = 2) -> set[str]:
    """The tensors that the weights set, which are none of a new network's but theirs; checks the count."""
    torch.manual_seed(1)
    network = build(name, classes)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    weights = {key: value + 1 for key, value in weights.items()}  # nothing is as in a new network
    count = copy_blocks(network, weights)
    after = network.state_dict()
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    assert all(torch.equal(after[key], weights[key]) for key in changed)
    assert count == sum(parameter.numel() for key, parameter in network.named_parameters() if key in changed)
    return changed


@pytest.mark.parametrize("name", ["resnet_18", "resnet_18_os8"])
def test_the_teacher_s_encoder_fits_the_student(name: str) -> None:
    assert taken(name, state("raunet", 0)) == {key for key in state(name, 0) if key.startswith("encoder.")}


def test_a_head_of_other_classes_stays_fresh() -> None:
    weights = state("resnet_18_os8", 0, classes=3)
    assert taken("resnet_18", weights) == weights.keys() - {"head.weight", "head.bias"}
    assert taken("resnet_18", weights, classes=3) == weights.keys()


def test_no_residual_block_is_taken_in_part() -> None:
    weights = state("resnet_18", 0)
    wider = torch.zeros(64, 64, 5, 5)
    kept = taken("resnet_18", {**weights, "encoder.layer1.0.conv2.weight": wider})
    assert kept == {key for key in weights if not key.startswith("encoder.layer1.0.")}
    without_stem_norm = {key: value for key, value in weights.items() if not key.startswith("encoder.bn1.")}
    assert taken("resnet_18", without_stem_norm) == without_stem_norm.keys() - {"encoder.conv1.weight"}


def test_blocks_of_another_kind_do_not_fit() -> None:
    """A bottleneck shares names, and even shapes, with a basic block."""
    kept = taken("resnet_18", state("resnet_50", 0))
    assert kept and all(key.startswith(("encoder.conv1.", "encoder.bn1.")) for key in kept)
    assert not taken("malunet", state("resnet_18", 0))
