"""Times distillation steps against what they cannot do without: the teacher's forward pass and the student's step.

    python scripts/bench_step.py --size 384 --batch 8 --repeats 20 --device cuda --amp bf16
    python scripts/bench_step.py --kd hlfd cwd cwd_features,layers=e4+e5 --teacher unet_r50 --student resnet_18

The images are random. The kinds of step take turns, so that a busy machine slows all of them; medians and their
ratios to the baseline are printed, on a GPU also the most memory that a step takes beyond weights and optimisers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING

import _root  # noqa: F401

from distillation import METHODS
from engine.options import Parser, whole
from utils.errors import run

if TYPE_CHECKING:
    import torch

    from distillation.task import TrainingTask
    from engine.device import Precision
    from utils.batch import Batch

BASELINE = "teacher forward + plain step"
SLOW = 2.0  # times the baseline

Step = Callable[[], object]


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--kd", nargs="+", default=list(METHODS), metavar="METHOD", help="default: every method")
    parser.add_argument("--teacher", default="raunet", help="a network's name (default: raunet)")
    parser.add_argument("--student", default="resnet_18", help="a network's name (default: resnet_18)")
    parser.add_argument("--size", type=whole(1), default=384, help="pixels along each side (default: 384)")
    parser.add_argument("--batch", type=whole(1), default=2, help="images in a batch (default: 2)")
    parser.add_argument("--classes", type=whole(2), default=2, help="background included (default: 2)")
    parser.add_argument("--repeats", type=whole(1), default=10, help="timed steps of each kind (default: 10)")
    parser.add_argument("--device", default="cpu", help="auto, cpu (the default), cuda, cuda:1, mps")
    parser.add_argument("--amp", choices=["auto", "off", "bf16", "fp16"], default="off", help="default: off")
    options = parser.parse_args()

    from engine.device import choose_device
    from engine.timing import measure_in_turns

    device = choose_device(options.device)
    costs = measure_in_turns(make_steps(options, device), options.repeats, device)
    ratios = {name: cost.median / costs[BASELINE].median for name, cost in costs.items()}
    for name, cost in costs.items():
        memory = f"{max(cost.gigabytes):9.2f} GB" if max(cost.gigabytes) else ""
        print(f"{name:30} {1000 * cost.median:9.1f} ms   x {ratios[name]:.3f}{memory}")
    slow = [name for name, ratio in ratios.items() if ratio > SLOW]
    print(f"over {SLOW:g} times the baseline: {', '.join(slow) or 'none'}")


def make_steps(options: argparse.Namespace, device: torch.device) -> dict[str, Step]:
    """Name -> one whole training step, its optimisers included."""
    import torch

    from distillation import build_method
    from distillation.task import Distiller, SupervisedTask
    from engine.device import Precision
    from networks import build
    from utils.batch import Batch

    torch.manual_seed(0)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    precision = Precision(options.amp, device)
    shape = (options.batch, options.size, options.size)
    mask = torch.randint(0, options.classes, shape, dtype=torch.uint8)
    batch = Batch(torch.randn(shape).unsqueeze(1), mask, [""] * options.batch).to(device)
    names = (options.teacher, options.student)
    teacher, student = (build(name, options.classes).to(memory_format=torch.channels_last) for name in names)
    teacher.to(device).eval()
    plain = training_step(SupervisedTask(deepcopy(student)), batch, precision)

    def baseline() -> None:
        with torch.no_grad(), precision.autocast():
            teacher(batch.image)
        plain()

    steps = {BASELINE: baseline}
    for spec in options.kd:
        method = build_method([spec], student.channels, teacher.channels)
        steps[spec] = training_step(Distiller(deepcopy(student), teacher, method), batch, precision)
    return steps


def training_step(task: TrainingTask, batch: Batch, precision: Precision) -> Step:
    """A step of the training loop."""
    from engine.training.trainer import make_optimizers, take_step

    task.to(precision.device).train().prepare([batch])
    optimizers = make_optimizers(task, lr=1e-4)

    return partial(take_step, task, batch, optimizers, precision)


if __name__ == "__main__":
    run(main)
