"""Times distillation steps against what they cannot do without: the teacher's forward pass and the student's step.

    python scripts/bench_step.py --size 384 --batch_size 8 --repeats 20 --device cuda --amp bf16
    python scripts/bench_step.py --kd hlfd cwd cwd_features,layers=e4+e5 --model unet_r50 --smodel resnet_18

The images are random. The kinds of step take turns, so that a busy machine slows all of them; medians and their
ratios to the baseline are printed, on a GPU also the most memory that a step takes beyond weights and optimisers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import _root  # noqa: F401

from distillation import METHODS
from utils.allocation import freed_memory_kept
from utils.errors import run
from utils.numbers import PositiveInt, int_from
from utils.options import Parser, option

if TYPE_CHECKING:
    import torch

SLOW = 2.0  # times the baseline
ALIASES = {"teacher": "model", "student": "smodel", "batch": "batch_size"}


@dataclass(frozen=True)
class StepOptions:
    """steps: which, and how large"""

    kd: tuple[str, ...] = option((), "methods (default: all that suit the teacher)", metavar="METHOD")
    model: str = option("raunet", "the teacher, by its network's name")
    smodel: str = option("resnet_18", "the student, by its network's name")
    size: PositiveInt = option(384, "pixels along each side")
    batch_size: PositiveInt = option(2, "images in a batch")
    classes: int = option(2, "classes, the background among them", type=int_from(2))
    repeats: PositiveInt = option(10, "timed steps of each kind")
    device: str = option("cpu", "auto, cpu, cuda, cuda:1 or mps")
    amp: Literal["auto", "off", "bf16", "fp16"] = option("off", "mixed precision")


def main() -> None:
    (options,) = Parser(__doc__, ALIASES).read(StepOptions)

    from engine.cost import measure_in_turns
    from engine.device import choose_device
    from engine.training.timed_step import BASELINE

    device = choose_device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        steps = make_steps(options, Path(folder), device)
    with freed_memory_kept(device.type == "cpu"):
        costs = measure_in_turns(steps, options.repeats, device)
    ratios = {name: cost.median / costs[BASELINE].median for name, cost in costs.items()}
    for name, cost in costs.items():
        memory = f"{max(cost.gigabytes):9.2f} GB" if max(cost.gigabytes) else ""
        print(f"{name:30} {1000 * cost.median:9.1f} ms   x {ratios[name]:.3f}{memory}")
    slow = [name for name, ratio in ratios.items() if ratio > SLOW]
    print(f"over {SLOW:g} times the baseline: {', '.join(slow) or 'none'}")


def make_steps(options: StepOptions, folder: Path, device: torch.device) -> dict[str, Callable[[], object]]:
    """Name -> one training step, its optimisers included, on slices of noise in `folder`."""
    import torch

    from distillation import parse_method, suits
    from engine.options import DataOptions, DistillationOptions, RunOptions, TrainingOptions
    from engine.segmenter import Segmenter
    from engine.training.run import new_segmenter
    from engine.training.timed_step import steps_beside_baseline
    from phantoms.noise import write_noise

    if device.type == "cuda":
        torch.cuda.set_device(device)
    slices = write_noise(folder, options.size, options.batch_size, options.classes)
    data = DataOptions("msd", "all", folder, size=options.size, crop=0, augment="none")
    training = TrainingOptions(
        checkpoint_path=folder,
        steps=100,
        batch_size=options.batch_size,
        lr=1e-4,
        amp=options.amp,
        device=options.device,
    )
    torch.manual_seed(0)
    teacher: Segmenter
    teacher, _ = new_segmenter(RunOptions(options.model, data, training), slices)
    teacher.network.to(device).eval()
    names = options.kd or [name for name in METHODS if suits(parse_method(name), teacher.network.channels)]
    checkpoint = folder / "teacher.ckpt"
    distillations = {name: DistillationOptions(checkpoint, methods=(parse_method(name),)) for name in names}
    return steps_beside_baseline(RunOptions(options.smodel, data, training), options.size, teacher, distillations)


if __name__ == "__main__":
    run(main)
