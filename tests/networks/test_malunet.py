"""MALUNet."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from scipy.stats import norm as normal

from engine.cost import parameters_and_macs
from networks import build
from networks.malunet import ChannelBridge, DilatedGatedAttention, InvertedExternalAttention, SpatialBridge
from tests.contracts.networks import NetworkContract
from tests.golden.arrays import Array, array, convolve_array
from tests.golden.layers import assert_close, assert_module_gives, random_maps


class TestMALUNet(NetworkContract):
    name, encoder, decoder = "malunet", (8, 16, 24, 32, 64), (32, 24, 16, 8)

    def test_costs_what_the_paper_says(self) -> None:
        """The paper's 0.175 M and 0.083 GFLOPs are for three input channels, and leave out the group norms."""
        network = build(self.name, classes=1)
        colour, pixels = 2 * 8 * 9, 256 * 256
        norms = sum(p.numel() for m in network.modules() if isinstance(m, torch.nn.GroupNorm) for p in m.parameters())
        parameters, macs = parameters_and_macs(network, size=256)
        assert parameters + colour - norms == pytest.approx(0.175e6, abs=0.0005e6)
        assert macs + colour * pixels == pytest.approx(0.083e9, abs=0.0005e9)


def group_norm(x: Array, groups: int = 4) -> Array:
    grouped = x.reshape(len(x), groups, -1)
    centred = grouped - grouped.mean(axis=2, keepdims=True)
    return (centred / np.sqrt(grouped.var(axis=2, keepdims=True) + 1e-5)).reshape(x.shape)


def gelu(x: Array) -> Array:
    return x * normal.cdf(x)


class TestParts:
    def test_external_attention(self) -> None:
        torch.manual_seed(0)
        module, maps = InvertedExternalAttention(8), random_maps(8)
        x = array(maps)
        keys, values = (array(m.weight)[:, :, 0] for m in (module.keys, module.values))
        assert keys.shape == (32, 8) and values.shape == (8, 32)
        attention = softmax(keys @ convolve_array(x, module.query).reshape(2, 8, 48), axis=2)
        attention /= attention.sum(axis=1, keepdims=True)
        attended = convolve_array((values @ attention).reshape(x.shape), module.out[0])
        assert_module_gives(module, maps, gelu(x + group_norm(attended)))

    def test_dilated_gated_attention(self) -> None:
        torch.manual_seed(0)
        module, maps = DilatedGatedAttention(8, 12), random_maps(8)
        quarters = np.split(array(maps), 4, axis=1)
        dilated = np.concatenate(list(map(convolve_array, quarters, module.dilated)), axis=1)
        x = gelu(convolve_array(group_norm(dilated), module.mix[1]))

        def separable(x: Array, block: torch.nn.Module) -> Array:
            return convolve_array(group_norm(convolve_array(x, block[0])), block[2])

        gated = module.gated
        product = expit(separable(x, gated.gate[0])) * gelu(separable(x, gated.value[0]))
        assert_module_gives(module, maps, gelu(separable(product, gated.out[0])) + convolve_array(x, gated.shortcut))

    def test_spatial_bridge_weighs_pixels(self) -> None:
        torch.manual_seed(0)
        module, stages = SpatialBridge(), [random_maps(3), random_maps(5, seed=1)]
        for bridged, maps in zip(module(stages), stages, strict=True):
            x = array(maps)
            pooled = np.stack((x.mean(axis=1), x.max(axis=1)), axis=1)
            expected = x * (1 + expit(convolve_array(pooled, module.conv)))
            assert_close(array(bridged), expected)

    def test_channel_bridge_weighs_channels_by_those_of_all_stages(self) -> None:
        torch.manual_seed(0)
        module, stages = ChannelBridge((3, 5)), [random_maps(3), random_maps(5, seed=1)[..., :3, :4]]
        pooled = np.concatenate([array(maps).mean(axis=(2, 3)) for maps in stages], axis=1)
        kernel = array(module.mix.weight).ravel()
        mixed = np.stack([np.convolve(row, kernel[::-1], mode="same") for row in pooled])
        for bridged, maps, weigh in zip(module(stages), stages, module.weigh, strict=True):
            matrix, bias = (array(p) for p in (weigh.weight, weigh.bias))
            expected = array(maps) * (1 + expit(mixed @ matrix.T + bias))[:, :, None, None]
            assert_close(array(bridged), expected)
