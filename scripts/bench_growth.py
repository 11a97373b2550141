"""Time and memory of cutting, of an epoch and of an evaluation, against the number of cases.

    python scripts/bench_growth.py --cases 10 40 160 --outpath growth.png

The cases are phantoms, of which a larger number contains the smaller ones. Every command is run as a user types it, in
one process of one thread. Printed are its seconds, by the clock and of the processor, the peak of the memory of all its
processes, and, from one number of cases to the next, what a further case costs: where time is linear, this stays the
same, and where memory is flat, it is 0. SliceMaker cuts all slices, the epoch is the first one, with its validation and
without a cache, and the evaluation is of whole volumes of the raw cases.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import _root  # noqa: F401
from _memory import Cost, spend

from utils.errors import run
from utils.numbers import PositiveInt
from utils.options import Parser, option

if TYPE_CHECKING:
    from matplotlib.figure import Figure

in_one_thread = partial(spend, OMP_NUM_THREADS="1")


@dataclass(frozen=True)
class GrowthOptions:
    """growth: of what"""

    cases: tuple[PositiveInt, ...] = option((10, 40, 160), "numbers of cases", metavar="N")
    size: int = option(256, "pixels along a side of a phantom's slices", type=int)
    slices: PositiveInt = option(16, "of a phantom")
    model: str = option("malunet", "the network's name")
    train_size: PositiveInt = option(64, "pixels along a side of what the network sees")
    raw: Path | None = option(None, "folder to make the phantoms in, and to leave them (default: a temporary one)")
    outpath: Path | None = option(None, "a figure to write, such as growth.png")


Costs = Mapping[str, Mapping[int, Cost]]
"""By the command's name and the number of cases."""


def main() -> None:
    (options,) = Parser(__doc__).read(GrowthOptions)
    costs: dict[str, dict[int, Cost]] = {}
    print(f"{'':12}{'cases':>7}{'clock s':>10}{'processor s':>13}{'peak MiB':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for count in sorted(options.cases):
            for name, cost in measure(options, Path(folder), count):
                costs.setdefault(name, {})[count] = cost
                print(f"{name:12}{count:7}{cost.seconds:10.2f}{cost.processor:13.2f}{cost.mebibytes:10.0f}", flush=True)
    for name, of_counts in costs.items():
        for (few, before), (many, after) in pairwise(of_counts.items()):
            seconds, mebibytes = further(few, before, many, after)
            print(f"{name}, a further case from {few} to {many}: {seconds:.4f} processor s, {mebibytes:+.3f} MiB")
    if options.outpath:
        from engine.reporting import save_figure

        save_figure(draw(costs), options.outpath)


def measure(options: GrowthOptions, folder: Path, count: int) -> Sequence[tuple[str, Cost]]:
    """Each command on the first `count` phantoms, which are made where they are missing."""
    raw, out = folder / "raw", folder / str(count)
    slices, checkpoints = out / "slices", out / "checkpoints"
    sizes = ("--size", options.size, "--slices", options.slices, options.slices)
    phantoms = options.raw or folder / "phantoms"
    in_one_thread("scripts/make_phantom.py", "--outpath", phantoms, "--cases", count, *sizes)
    raw.mkdir(exist_ok=True)
    for case in sorted(phantoms.glob("case_*"))[:count]:
        if not (raw / case.name).exists():
            (raw / case.name).symlink_to(case.resolve())
    data = ("--dataset", "kits", "--task", "tumor")
    cut = ("--inpath", raw, "--outpath", slices, *data, "--slices", "all", "--workers", 1)
    seen = ("--size", options.train_size, "--crop", 0, "--workers", 0, "--cache", "none", "--device", "cpu")
    train = ("--train_data_path", slices, *data, "--model", options.model, "--epochs", 1, *seen, "--amp", "off")
    # One network for all, for what a prediction looks like decides how long its distances take.
    trained = folder / str(min(options.cases)) / "checkpoints" / "best.ckpt"
    score = ("--inpath", raw, *data[:2], "--device", "cpu", "--outpath", out / "results.json")
    return [
        ("SliceMaker", in_one_thread("scripts/SliceMaker.py", *cut)),
        ("an epoch", in_one_thread("train.py", *train, "--checkpoint_path", checkpoints)),
        ("evaluation", in_one_thread("scripts/evaluate.py", "--ckpt", trained, *score)),
    ]


def further(few: int, before: Cost, many: int, after: Cost) -> tuple[float, float]:
    """Seconds of the processor, and MiB, that each of the cases beyond the first `few` cost."""
    return (
        (after.processor - before.processor) / (many - few),
        (after.mebibytes - before.mebibytes) / (many - few),
    )


def draw(costs: Costs) -> Figure:
    """Time and memory against the number of cases, a line for each command."""
    from matplotlib import pyplot as plt

    figure, (time_axes, memory_axes) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for name, of_counts in costs.items():
        counts = list(of_counts)
        time_axes.plot(counts, [cost.processor for cost in of_counts.values()], "o-", label=name, markersize=4)
        memory_axes.plot(counts, [cost.mebibytes for cost in of_counts.values()], "o-", label=name, markersize=4)
    for axes, quantity in ((time_axes, "processor time, s"), (memory_axes, "peak memory, MiB")):
        axes.set(xlabel="cases", ylabel=quantity, ylim=(0, None), xlim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    time_axes.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    run(main)
