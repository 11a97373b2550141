"""Compare what networks cost: parameters, MACs, memory, speed, and the stages that distillation sees.

    python scripts/count_ops.py
    python scripts/count_ops.py --models raunet resnet_18 enet smp/unetplusplus/resnet18 --size 256
    python scripts/count_ops.py --models raunet resnet_18 --device cuda --batch_size 8 --markdown

GMACs are those of one slice. Memory is the peak of activations in one forward pass without gradients, beyond
weights and images, for the whole batch. Speed is from the median pass. A stage reads channels/stride.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import _root  # noqa: F401

from engine.options import Parser, device_option, whole
from utils.errors import run

if TYPE_CHECKING:
    import torch

HEADER = ["network", "parameters (M)", "GMACs", "peak memory (MiB)", "slices/s", "e1..e5", "d5..d2"]


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--models", nargs="+", metavar="NAME", help="networks (default: all that have a name of their own)")
    add("--size", type=whole(1), default=384, help="pixels along each side (default: 384)")
    add("--classes", type=whole(2), default=2, help="output channels (default: 2)")
    add("--batch_size", type=whole(1), default=1, help="slices at once, for memory and speed (default: 1)")
    add("--repeats", type=whole(1), default=10, help="timed passes (default: 10)")
    add("--threads", type=whole(1), help="CPU threads (default: PyTorch's choice)")
    add("--markdown", action="store_true", help="print a Markdown table")
    device_option(parser)
    args = parser.parse_args()

    import torch

    from engine.device import choose_device, environment
    from engine.reporting import format_table, markdown_table
    from networks import NETWORKS, network_name
    from utils.progress import progress

    names = [network_name(name) for name in args.models or NETWORKS]
    device = choose_device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    table = [HEADER, *(measure(name, device, args) for name in progress(names, "measuring", unit="network"))]
    print(markdown_table(table) if args.markdown else format_table(table))
    print(
        f"\n{args.batch_size} x 1 x {args.size} x {args.size}, {args.classes} classes; "
        f"{environment(device)['processor']}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
    )


def measure(name: str, device: torch.device, args: argparse.Namespace) -> list[str]:
    """One row of the table."""
    from networks import build
    from networks.count import count, peak_activation_bytes, slices_per_second, stages

    network = build(name, args.classes).to(device)
    parameters, macs = count(network, args.size)
    peak = peak_activation_bytes(network, args.size, args.batch_size)
    speed = slices_per_second(network, args.size, args.batch_size, args.repeats)
    maps = [f"{stage.channels}/{stage.stride}" for stage in stages(network)]
    return [
        name,
        f"{parameters / 1e6:.2f}",
        f"{macs / 1e9:.2f}",
        f"{peak / 2**20:.1f}",
        f"{speed:.1f}",
        " ".join(maps[:5]),
        " ".join(maps[5:]),
    ]


if __name__ == "__main__":
    run(main)
