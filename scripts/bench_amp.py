"""Times training steps and forward passes of networks alone in bf16 and in float32, on a CPU.

    python scripts/bench_amp.py                                  # all networks that see slices, on noise of 128 x 128
    python scripts/bench_amp.py --models malunet raunet --size 256 --threads 2

The two take turns, so that a busy machine slows both; medians, and bf16's in float32's. It says for which networks
`--amp auto` should leave out bf16 (`slower_in_bf16`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import _root  # noqa: F401

from networks import NETWORKS
from utils.allocation import keep_freed_memory
from utils.errors import run
from utils.numbers import PositiveInt
from utils.options import Parser, option

if TYPE_CHECKING:
    from networks.contract import SegmentationNetwork


@dataclass(frozen=True)
class AmpOptions:
    """what is timed"""

    models: tuple[str, ...] = option((), "networks (default: all that see slices)", metavar="NAME")
    size: PositiveInt = option(128, "pixels along a side")
    batch_size: PositiveInt = option(8, "images in a batch")
    threads: PositiveInt = option(1, "that compute")
    repeats: PositiveInt = option(3, "timed runs of each kind")


def main() -> None:
    (options,) = Parser(__doc__).read(AmpOptions)

    import torch

    from engine.cost import measure_in_turns
    from networks import build

    torch.set_num_threads(options.threads)
    keep_freed_memory()  # As in training.
    print(f"{'':18}{'step, s':>9}{'bf16':>8}{'ratio':>7}{'forward, s':>12}{'bf16':>8}{'ratio':>7}")
    for name in options.models or NETWORKS:
        network = build(name, 2)
        if network.block:
            continue
        costs = measure_in_turns(ways(network, options), options.repeats)
        step, step_bf16, forward, forward_bf16 = (cost.median for cost in costs.values())
        of_step = f"{step:9.3f}{step_bf16:8.3f}{step_bf16 / step:7.2f}"
        print(f"{name:18}{of_step}{forward:12.3f}{forward_bf16:8.3f}{forward_bf16 / forward:7.2f}", flush=True)


def ways(network: SegmentationNetwork, options: AmpOptions) -> dict[str, Callable[[], object]]:
    """A training step in float32 and in bf16, then a forward pass in each."""
    import torch
    from _noise_step import noise, step_on

    from engine.device import Precision

    image = noise(options.batch_size, options.size)

    def forward(precision: Precision) -> None:
        with torch.no_grad(), precision.autocast():
            network(image)

    plain, half = (Precision(name, torch.device("cpu")) for name in ("off", "bf16"))
    return {
        "step": step_on(image, network, plain.autocast),
        "step in bf16": step_on(image, network, half.autocast),
        "forward": lambda: forward(plain),
        "forward in bf16": lambda: forward(half),
    }


if __name__ == "__main__":
    run(main)
