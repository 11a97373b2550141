"""What a network costs: parameters, multiply-accumulates, memory, time; and what stages it has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from networks.contract import SegmentationNetwork
from networks.memory import LiveBytes


class Stage(NamedTuple):
    """stride: pixels of the image to one of the map."""

    name: str
    channels: int
    stride: int


@contextmanager
def evaluating(network: SegmentationNetwork) -> Iterator[None]:
    """Eval mode without gradients; then the mode that it was in."""
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(training)


def blank(network: SegmentationNetwork, size: int, batch: int = 1) -> Tensor:
    """Empty images [batch, 1, size, size] where the network is."""
    return torch.zeros(batch, 1, size, size, device=next(network.parameters()).device)


def count(network: SegmentationNetwork, size: int) -> tuple[int, int]:
    """(parameters, MACs) for one image [1, 1, size, size]; the MACs of convolutions and matrix products."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    with evaluating(network), FlopCounterMode(display=False) as counter:
        network(blank(network, size))
    return parameters, counter.get_total_flops() // 2


def peak_activation_bytes(network: SegmentationNetwork, size: int, batch: int = 1) -> int:
    """The most bytes alive at once in a forward pass without gradients, beyond the weights and the images.

    On CUDA the allocator's own peak, which includes what kernels use as scratch space; elsewhere the peak of live
    tensors (`networks.memory`).
    """
    images = blank(network, size, batch)
    with evaluating(network):
        if images.is_cuda:
            # The first pass loads kernels and workspaces that stay; they are no activations.
            network(images)
            torch.cuda.reset_peak_memory_stats(images.device)
            before = torch.cuda.memory_allocated(images.device)
            network(images)
            return int(torch.cuda.max_memory_allocated(images.device) - before)
        live = LiveBytes(known=(images, *network.parameters(), *network.buffers()))
        with live:
            network(images)
    return live.peak


def slices_per_second(network: SegmentationNetwork, size: int, batch: int = 1, repeats: int = 10) -> float:
    """From the median time of `repeats` forward passes in eval mode, after two untimed ones."""
    images = blank(network, size, batch)
    seconds = []
    with evaluating(network):
        for _ in range(2 + repeats):
            start = perf_counter()
            network(images)
            if images.device.type != "cpu":
                torch.accelerator.synchronize(images.device)
            seconds.append(perf_counter() - start)
    return batch / median(seconds[2:])


def stages(network: SegmentationNetwork) -> list[Stage]:
    """e1..e5 and d5..d2, from an image whose size no network has to pad."""
    size = 256
    with evaluating(network):
        features = network.features(blank(network, size))
    names = ("e1", "e2", "e3", "e4", "e5", "d5", "d4", "d3", "d2")
    maps = (*features.encoder, *features.decoder)
    return [Stage(name, m.shape[1], size // m.shape[-1]) for name, m in zip(names, maps, strict=True)]
