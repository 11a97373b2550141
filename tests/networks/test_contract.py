"""What the contract says of a network's stages before the first batch."""

from __future__ import annotations

import pytest
import torch

from networks.contract import STAGES, Channels, Features

ENCODER, DECODER = (8, 16, 24, 32, 64), (40, 30, 20, 10)


def test_stages_of_a_network_with_a_decoder() -> None:
    channels = Channels(ENCODER, DECODER, 3)
    assert channels.has_decoder
    assert [stage.name for stage in channels.stages] == list(STAGES)
    assert [channels.stage(name) for name in ("e1", "e5", "d5", "d2", "logits")] == [
        ("e1", 8, 2), ("e5", 64, 32), ("d5", 40, 16), ("d2", 10, 2), ("logits", 3, 1)
    ]  # fmt: skip


def test_without_a_decoder_the_encoders_stages_stand_for_its() -> None:
    channels = Channels(ENCODER, (), 2, encoder_strides=(1, 2, 4, 8, 8))
    assert not channels.has_decoder
    assert [channels.stage(f"d{i}")[1:] for i in (5, 4, 3, 2)] == [channels.stage(f"e{i}")[1:] for i in (4, 3, 2, 1)]


def test_strides_that_do_not_double_are_the_networks_own() -> None:
    channels = Channels(ENCODER, DECODER, 2, (2, 4, 8, 8, 8), (4, 4, 2, 2))
    assert [stage.stride for stage in channels.stages] == [2, 4, 8, 8, 8, 4, 4, 2, 2, 1]


def test_equal_channels_are_one_key() -> None:
    assert len({Channels(ENCODER, DECODER, 2), Channels(ENCODER, DECODER, 2), Channels(ENCODER, DECODER, 3)}) == 2


def test_a_stage_that_is_none() -> None:
    with pytest.raises(ValueError, match="not in"):
        Channels(ENCODER, DECODER, 2).stage("e6")


def test_features_give_their_stages_by_name() -> None:
    maps = [torch.full((1, 1, 1, 1), float(i)) for i in range(10)]
    features = Features(tuple(maps[:5]), tuple(maps[5:9]), maps[9])
    assert all(features.stage(name) is value for name, value in zip(STAGES, maps, strict=True))
    assert Features((), (), maps[9]).stage("logits") is maps[9]
