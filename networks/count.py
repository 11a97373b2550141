"""What a network costs: parameters and multiply-accumulates."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from networks.contract import SegmentationNetwork


def count(network: SegmentationNetwork, size: int) -> tuple[int, int]:
    """(parameters, MACs) for one image [1, 1, size, size]; the MACs of convolutions and matrix products."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    image = torch.zeros(1, 1, size, size, device=next(network.parameters()).device)
    training = network.training
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    network.train(training)
    return parameters, counter.get_total_flops() // 2
