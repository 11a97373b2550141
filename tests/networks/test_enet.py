"""ENet."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engine.cost import parameters_and_macs
from networks import build
from networks.blocks import ConvPool
from networks.enet import DownBottleneck, UpBottleneck, max_pool, max_unpool
from tests.contracts.networks import NetworkContract
from tests.golden.arrays import array, convolve_array, new_batch_norm_array
from tests.golden.layers import assert_close, assert_module_gives, prelu_array, random_maps


class TestENet(NetworkContract):
    name = "enet"
    encoder, decoder = (16, 64, 128, 128, 128), (64, 64, 16, 16)
    strides, decoder_strides = (2, 4, 8, 8, 8), (4, 4, 2, 2)

    def test_costs_what_the_paper_says(self) -> None:
        parameters, _ = parameters_and_macs(build(self.name, classes=19), size=64)
        assert parameters == pytest.approx(0.37e6, abs=0.01e6)


class TestUnpooling:
    @pytest.mark.parametrize("maps", [random_maps(5), random_maps(5).round(), torch.zeros(2, 5, 6, 8)])
    def test_equals_pytorchs_also_where_maxima_tie(self, maps: torch.Tensor) -> None:
        expected, indices = F.max_pool2d(maps, kernel_size=2, return_indices=True)
        pooled, where = max_pool(maps)
        assert torch.equal(pooled, expected)
        values = torch.randn_like(pooled)
        assert torch.equal(max_unpool(values, where), F.max_unpool2d(values, indices, kernel_size=2))

    def test_gradients_equal_pytorchs(self) -> None:
        gradients = []
        for unpooled in (
            lambda x: max_unpool(*max_pool(x)),
            lambda x: F.max_unpool2d(*F.max_pool2d(x, kernel_size=2, return_indices=True), kernel_size=2),
        ):
            maps = random_maps(3).requires_grad_()
            unpooled(maps).pow(3).sum().backward()
            gradients.append(maps.grad)
        torch.testing.assert_close(*gradients)

    def test_bottlenecks_pool_and_unpool_around_their_branches(self) -> None:
        """With the branches silenced, a value goes back to where the encoder's maximum lay."""
        torch.manual_seed(0)
        maps, down, up = random_maps(16).abs(), DownBottleneck(16, 64, dropout=0.1), UpBottleneck(64, 16, dropout=0.1)
        for module in (down, up):
            torch.nn.init.zeros_(module.extension[5].weight)
        pooled, indices = F.max_pool2d(maps, kernel_size=2, return_indices=True)
        with torch.no_grad():
            halved, where = down.eval()(maps)
        assert torch.equal(halved[:, :16], pooled) and not halved[:, 16:].any()
        values = torch.from_numpy(new_batch_norm_array(convolve_array(array(halved), up.project[0])))
        expected = prelu_array(F.max_unpool2d(values, indices, kernel_size=2).numpy())
        assert_close(array(up.eval()(halved, where)), expected)


def test_initial_block_joins_convolution_and_pooling() -> None:
    torch.manual_seed(0)
    module, maps = ConvPool(3, 8), random_maps(3)
    convolved = convolve_array(array(maps), module.conv)[:, :, ::2, ::2]
    pooled = array(maps).reshape(2, 3, 3, 2, 4, 2).max(axis=(3, 5))
    assert_module_gives(module, maps, new_batch_norm_array(np.concatenate((convolved, pooled), axis=1)))
