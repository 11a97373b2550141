"""What networks and training steps cost: parameters, multiply-accumulates, memory and time, all measured here."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from engine.runtime.network import ExportedNetwork
from engine.segmenter import Segmenter
from networks.contract import SegmentationNetwork

CPU = torch.device("cpu")
SOURCE_SIZE = 512  # pixels; what a frame that keeps the source's size is measured at


class Cost(NamedTuple):
    """Of each repeat: seconds, and the peak of GPU memory in GB beyond what was allocated before (0 on a CPU)."""

    seconds: list[float]
    gigabytes: list[float]

    @property
    def median(self) -> float:
        """Seconds."""
        return median(self.seconds)


def network_cost(segmenter: Segmenter) -> dict[str, Any]:
    """parameters; gmacs of one slice in the segmenter's frame; gmacs_at: that slice's side in pixels.

    An exported network states its own, for its operations cannot be counted.
    """
    if isinstance(segmenter.network, ExportedNetwork):
        return segmenter.network.cost
    side = segmenter.frame.image(torch.zeros(1, SOURCE_SIZE, SOURCE_SIZE)).shape[-1]
    parameters, macs = parameters_and_macs(segmenter.network, side)
    return {"parameters": parameters, "gmacs": round(macs / 1e9, 3), "gmacs_at": side}


def format_size(parameters: int, gmacs: float) -> tuple[str, str]:
    """Both as the tables show them: ("22.13 M", "0.81")."""
    return f"{parameters / 1e6:.2f} M", f"{gmacs:.2f}"


def parameters_and_macs(network: SegmentationNetwork, size: int) -> tuple[int, int]:
    """Parameters, and the MACs of convolutions and matrix products for one slice of size x size."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    with evaluating(network), FlopCounterMode(display=False) as counter:
        network(blank(network, size))
    return parameters, counter.get_total_flops() // 2 // (network.block or 1)


def forward_speed(network: SegmentationNetwork, size: int, batch: int = 1, repeats: int = 10) -> float:
    """Slices per second of the median forward pass in eval mode, after two untimed ones; batch: as of `blank`."""
    images = blank(network, size, batch)
    with evaluating(network):
        cost = measure_in_turns({"forward": lambda: network(images)}, repeats, images.device, untimed=2)["forward"]
    return batch * (network.block or 1) / cost.median


def segmentation_speed(segmenter: Segmenter, image: NDArray[np.int16], window: tuple[float, float]) -> float:
    """Slices per second from source pixels [N, H, W] to labels, on the CPU; the median of three."""
    cost = measure_in_turns({"segment": lambda: segmenter.segment(image, window)}, repeats=3)["segment"]
    return len(image) / cost.median


def evaluation_speed(scores: Sequence[Mapping[str, Any]]) -> float:
    """Slices per second from source pixels to labels in an evaluation's region scores, each case counted once."""
    cases = {entry["case"]: entry for entry in scores}.values()
    return float(sum(entry["slices"] for entry in cases) / max(sum(entry["seconds"] for entry in cases), 1e-9))


def measure_in_turns(
    steps: Mapping[str, Callable[[], object]], repeats: int, device: torch.device = CPU, untimed: int = 1
) -> dict[str, Cost]:
    """The cost of each step on the device, by name; `untimed` runs of each come first.

    The steps take turns, so that a busy machine slows all of them alike.
    """
    on_gpu = device.type == "cuda"
    costs = {name: Cost([], []) for name in steps}
    for turn in range(untimed + repeats):
        for name, step in steps.items():
            resident = torch.cuda.memory_allocated(device) if on_gpu else 0
            if on_gpu:
                torch.cuda.reset_peak_memory_stats(device)
            start = perf_counter()
            step()
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            if turn >= untimed:
                costs[name].seconds.append(perf_counter() - start)
                costs[name].gigabytes.append(
                    (torch.cuda.max_memory_allocated(device) - resident) / 1e9 if on_gpu else 0.0
                )
    return costs


def peak_activation_bytes(network: SegmentationNetwork, size: int, batch: int = 1) -> int:
    """The peak of bytes allocated in a forward pass without gradients, beyond the weights and the images.

    On CUDA the allocator's own peak, which includes what kernels use as scratch space; elsewhere that of live
    tensors (`LiveBytes`).
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
        live = LiveBytes(excluded=(images, *network.parameters(), *network.buffers()))
        with live:
            network(images)
    return live.peak


class LiveBytes(TorchDispatchMode):
    """Inside this context, `peak` is the largest number of bytes that tensors made here held at once, on any device.

    Each operation's results count from when it returns until their storage is freed: its inputs, if they are still
    referenced, and results are alive together; views and in-place operations cost nothing. What a kernel allocates
    for itself and frees before it returns is not seen. `excluded`: tensors whose memory does not count.
    """

    def __init__(self, excluded: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive = self.peak = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in excluded}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        self.peak = max(self.peak, self.alive)
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen.add(storage._cdata)
            self.alive += storage.nbytes()
            weakref.finalize(storage, self._remove, storage._cdata, storage.nbytes())

    def _remove(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.alive -= size


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
    """Empty images [batch, 1, size, size] where the network is; of a volumetric one, blocks of such slices."""
    slices = (network.block,) if network.block else ()
    return torch.zeros(batch, 1, *slices, size, size, device=next(network.parameters()).device)
