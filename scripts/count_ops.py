"""Compare what networks cost: parameters, MACs, memory, speed, and the stages that distillation compares.

    python scripts/count_ops.py
    python scripts/count_ops.py --model raunet resnet_18 enet smp/unetplusplus/resnet18 --size 256
    python scripts/count_ops.py --model raunet resnet_18 --device cuda --batch_size 8 --markdown

GMACs are those of one slice. Memory is the peak of activations in one forward pass without gradients, beyond
weights and images, for the whole batch. Speed is that of the median pass. A stage reads channels/stride.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import _root  # noqa: F401

from utils.errors import run
from utils.numbers import PositiveInt, int_from
from utils.options import Parser, option

if TYPE_CHECKING:
    import torch


ALIASES = {"models": "model"}


@dataclass(frozen=True)
class CountOptions:
    """networks: which, and on what"""

    model: tuple[str, ...] = option((), "networks (default: all that have a name of their own)", metavar="NAME")
    size: PositiveInt = option(384, "pixels along each side")
    classes: int = option(2, "output channels", type=int_from(2))
    batch_size: PositiveInt = option(1, "slices at once, for memory and speed")
    repeats: PositiveInt = option(10, "timed passes")
    threads: PositiveInt | None = option(None, "CPU threads (default: PyTorch's choice)")
    markdown: bool = option(False, "print a Markdown table")
    device: str = option("auto", "auto, cpu, cuda, cuda:1 or mps")


def main() -> None:
    (options,) = Parser(__doc__, ALIASES).read(CountOptions)

    # PyTorch takes seconds to load, and --help should not wait for it.
    import pandas as pd
    import torch

    from engine.device import choose_device, environment
    from engine.reporting import format_table, markdown_table
    from networks import NETWORKS, network_name
    from utils.progress import progress

    names = [network_name(name) for name in options.model or NETWORKS]
    device = choose_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    table = pd.DataFrame(measure(name, device, options) for name in progress(names, "measuring", unit="network"))
    print(markdown_table(table) if options.markdown else format_table(table))
    print(
        f"\n{options.batch_size} x 1 x {options.size} x {options.size}, {options.classes} classes; "
        f"{environment(device)['processor']}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
    )


def measure(name: str, device: torch.device, options: CountOptions) -> dict[str, str]:
    """A line of the table."""
    from engine.cost import format_size, forward_speed, parameters_and_macs, peak_activation_bytes
    from networks import build

    network = build(name, options.classes).to(device)
    parameters, macs = parameters_and_macs(network, options.size)
    size, gmacs = format_size(parameters, macs / 1e9)
    maps = [f"{stage.channels}/{stage.stride}" for stage in network.channels.stages]
    return {
        "network": name,
        "parameters": size,
        "GMACs": gmacs,
        "peak memory (MiB)": f"{peak_activation_bytes(network, options.size, options.batch_size) / 2**20:.1f}",
        "slices/s": f"{forward_speed(network, options.size, options.batch_size, options.repeats):.1f}",
        "e1..e5": " ".join(maps[:5]),
        "d5..d2": " ".join(maps[5:9]),
    }


if __name__ == "__main__":
    run(main)
