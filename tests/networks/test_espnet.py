"""ESPNet."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.cost import parameters_and_macs
from networks import build
from networks.espnet import ESP
from tests.contracts.networks import NetworkContract
from tests.golden.arrays import array, convolve_array, new_batch_norm_array
from tests.golden.layers import assert_module_gives, prelu_array, random_maps


class TestESPNet(NetworkContract):
    name, encoder, decoder = "espnet", (16, 64, 128, 128, 128), (20, 20, 20, 20)
    strides, decoder_strides = (2, 4, 8, 8, 8), (4, 4, 2, 2)

    def test_costs_what_the_paper_says(self) -> None:
        parameters, _ = parameters_and_macs(build(self.name, classes=20), size=64)
        assert parameters == pytest.approx(0.364e6, abs=0.0005e6)


@pytest.mark.parametrize("residual", [True, False])
def test_esp_fuses_its_branches_hierarchically(residual: bool) -> None:
    torch.manual_seed(0)
    module, maps = ESP(12, 12, residual=residual), random_maps(12)
    reduced = convolve_array(array(maps), module.reduce)
    b1, b2, b4, b8, b16 = (convolve_array(reduced, branch) for branch in module.branches)
    assert [b.shape[1] for b in (b1, b2, b4, b8, b16)] == [4, 2, 2, 2, 2]
    fused = np.concatenate((b1, b2, b2 + b4, b2 + b4 + b8, b2 + b4 + b8 + b16), axis=1)
    normed = new_batch_norm_array(fused + residual * array(maps))
    assert_module_gives(module, maps, prelu_array(normed))
