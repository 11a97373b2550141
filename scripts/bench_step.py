"""Times distillation steps against what they cannot do without: RAUNet to ResNet-18 on random images.

    python scripts/bench_step.py --size 384 --batch 8 --repeats 20 --device cuda

The kinds of step take turns, so that a busy machine slows all of them; medians and their ratios are printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from copy import deepcopy
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import _root  # noqa: F401

from engine.options import Parser, whole
from utils.errors import run

if TYPE_CHECKING:
    from torch import nn

    from utils.batch import Batch

NETWORKS = ("raunet", "resnet_18")
BASELINE = "teacher forward + plain step"


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--size", type=whole(1), default=384, help="pixels along each side (default: 384)")
    parser.add_argument("--batch", type=whole(1), default=2, help="images in a batch (default: 2)")
    parser.add_argument("--repeats", type=whole(1), default=10, help="timed steps of each kind (default: 10)")
    parser.add_argument("--device", default="cpu", help="auto, cpu (the default), cuda, cuda:1, mps")
    options = parser.parse_args()

    seconds = time_in_turns(make_steps(options), options.repeats)
    medians = {name: median(times) for name, times in seconds.items()}
    for name, middle in medians.items():
        print(f"{name:30} {1000 * middle:9.1f} ms   x {middle / medians[BASELINE]:.3f}")


def make_steps(options: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """Name -> one whole training step, its optimiser included."""
    import torch

    from distillation import build_method
    from distillation.tasks import Distiller, SupervisedTask
    from engine.device import choose_device
    from networks import build
    from utils.batch import Batch

    torch.manual_seed(0)
    device = choose_device(options.device)
    shape = (options.batch, options.size, options.size)
    mask = torch.randint(0, 2, shape, dtype=torch.uint8)
    batch = Batch(torch.randn(shape).unsqueeze(1), mask, [""] * options.batch).to(device)
    teacher, student = (build(name, classes=2).to(memory_format=torch.channels_last) for name in NETWORKS)
    teacher.to(device).eval()
    plain = training_step(SupervisedTask(deepcopy(student)).to(device), batch)

    def baseline() -> None:
        with torch.no_grad():
            teacher(batch.image)
        plain()

    steps = {BASELINE: baseline}
    for name in ("hlfd", "hlfd_published"):
        method = build_method([name], student.channels, teacher.channels)
        steps[name] = training_step(Distiller(deepcopy(student), teacher, method).to(device), batch)
    return steps


def training_step(task: nn.Module, batch: Batch) -> Callable[[], None]:
    """Forward, backward and Adam; waits until an accelerator has done them."""
    import torch

    optimizer = torch.optim.Adam(task.train().parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        task(batch)["loss"].backward()
        optimizer.step()
        if batch.image.device.type != "cpu":
            torch.accelerator.synchronize(batch.image.device)

    return step


def time_in_turns(steps: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each repeat, by name; one untimed step of each comes first."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            start = perf_counter()
            step()
            if turn:
                seconds[name].append(perf_counter() - start)
    return seconds


if __name__ == "__main__":
    run(main)
