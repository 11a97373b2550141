"""RAUNet."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.cost import parameters_and_macs
from networks import build
from networks.raunet import AugmentedAttention
from tests.contracts.networks import NetworkContract, StageContract
from tests.golden.arrays import Array, array, convolve_array, new_batch_norm_array
from tests.golden.layers import assert_close

ENCODER, DECODER = (64, 64, 128, 256, 512), (256, 128, 64, 64)


class TestRAUNet(NetworkContract):
    name, encoder, decoder = "raunet", ENCODER, DECODER

    def test_costs_what_the_paper_says(self) -> None:
        parameters, macs = parameters_and_macs(self.network(), size=384)
        assert parameters == pytest.approx(22.1e6, abs=0.05e6)
        assert macs == pytest.approx(13.0e9, abs=0.05e9)


class TestRAUNetOS8(NetworkContract):
    name, encoder, decoder = "raunet_os8", ENCODER, DECODER
    strides, exported_as = (2, 4, 8, 8, 8), "raunet"


class TestRAUNetOS16(StageContract):
    name, encoder, decoder = "raunet_os16", ENCODER, DECODER
    strides = (2, 4, 8, 16, 16)


def test_an_output_stride_changes_the_shape_of_the_transposed_convolutions_alone() -> None:
    usual, dilated = (build(name, classes=2).state_dict() for name in ("raunet", "raunet_os8"))
    assert usual.keys() == dilated.keys()
    others = {name for name, value in usual.items() if value.shape != dilated[name].shape}
    assert others == {"blocks.0.1.weight", "blocks.1.1.weight"}


def test_augmented_attention_weighs_the_skip_by_both_maps() -> None:
    torch.manual_seed(0)
    module = AugmentedAttention(4).eval()
    maps = [torch.randn(2, 4, 3, 5) for _ in range(2)]
    high, low = map(array, maps)

    def conv_bn_relu(x: Array, block: torch.nn.Module) -> Array:
        return np.maximum(new_batch_norm_array(convolve_array(x, block[0])), 0)

    pooled_high, pooled_low = (x.mean(axis=(2, 3), keepdims=True) for x in (high, low))
    mixed = conv_bn_relu(pooled_high, module.high) + conv_bn_relu(pooled_low, module.low)
    exponential = np.exp(convolve_array(mixed, module.weight[0]))
    weight = exponential / exponential.sum(axis=1, keepdims=True)
    expected = high + weight * conv_bn_relu(low, module.skip)
    assert_close(array(module(*maps)), expected)
