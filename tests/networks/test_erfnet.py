"""ERFNet."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.cost import parameters_and_macs
from networks import build
from networks.erfnet import FactorizedResidual
from tests.contracts.networks import NetworkContract
from tests.golden.arrays import array, convolve_array, new_batch_norm_array
from tests.golden.layers import assert_module_gives, random_maps


class TestERFNet(NetworkContract):
    name = "erfnet"
    encoder, decoder = (16, 64, 128, 128, 128), (64, 64, 16, 16)
    strides, decoder_strides = (2, 4, 8, 8, 8), (4, 4, 2, 2)

    def test_costs_what_the_paper_says(self) -> None:
        parameters, _ = parameters_and_macs(build(self.name, classes=20), size=64)
        assert parameters == pytest.approx(2.06e6, abs=0.005e6)


@pytest.mark.parametrize("dilation", [1, 2])
def test_factorized_residual_is_two_pairs_of_one_dimensional_convolutions(dilation: int) -> None:
    torch.manual_seed(0)
    module, maps = FactorizedResidual(4, dropout=0.3, dilation=dilation), random_maps(4)
    first, second, third, fourth = (m for m in module.modules() if isinstance(m, torch.nn.Conv2d))
    assert [conv.kernel_size for conv in (first, second, third, fourth)] == [(3, 1), (1, 3), (3, 1), (1, 3)]
    x = array(maps)
    middle = np.maximum(new_batch_norm_array(convolve_array(np.maximum(convolve_array(x, first), 0), second)), 0)
    branch = new_batch_norm_array(convolve_array(np.maximum(convolve_array(middle, third), 0), fourth))
    assert_module_gives(module, maps, np.maximum(x + branch, 0))
