"""Times training steps on a CPU, with freed memory kept by the process and given back to the system.

    python scripts/bench_memory.py                                        # RAUNet to ResNet-18, HLFD
    python scripts/bench_memory.py --smodel malunet --kd hlfd cwd --size 128 --batch_size 8 --amp bf16

The two ways take turns; before each timed step comes one that is not, in which memory is found. Printed are medians,
and how many pages the system had to hand out and to zero in a step.
"""

from __future__ import annotations

import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import _root  # noqa: F401
from bench_step import StepOptions, make_steps

from utils.allocation import keep_freed_memory
from utils.errors import UserError, run
from utils.options import Parser

WAYS = {"given back": False, "kept": True}


@dataclass(frozen=True)
class Measured:
    """Of one step."""

    seconds: float
    pages: int


def main() -> None:
    (options,) = Parser(__doc__).read(StepOptions)

    from engine.device import choose_device

    if options.device != "cpu" or not keep_freed_memory():
        raise UserError("this can be said on a CPU only, of GNU's C library, where no MALLOC_ variable says it already")
    measured: dict[tuple[str, str], list[Measured]] = {}
    with tempfile.TemporaryDirectory() as folder:
        steps = make_steps(options, Path(folder), choose_device("cpu"))
    for _ in range(options.repeats):
        for way, kept in WAYS.items():
            keep_freed_memory(kept)
            for name, step in steps.items():
                step()
                pages, started = minor_faults(), time.perf_counter()
                step()
                seconds = time.perf_counter() - started
                measured.setdefault((name, way), []).append(Measured(seconds, minor_faults() - pages))
    first = next(iter(steps))
    baselines = {way: median(each.seconds for each in measured[first, way]) for way in WAYS}
    print(f"{'':30}{'freed memory':14}{'ms':>8}{'beside given back':>20}{'beside the first':>18}{'pages':>10}")
    for (name, way), values in sorted(measured.items(), key=lambda item: [*steps].index(item[0][0])):
        seconds, pages = median(each.seconds for each in values), median(each.pages for each in values)
        given_back = median(each.seconds for each in measured[name, "given back"])
        ratios = f"{seconds / given_back:20.2f}{seconds / baselines[way]:18.2f}"
        print(f"{name:30}{way:14}{1000 * seconds:8.0f}{ratios}{pages:10.0f}")


def minor_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


if __name__ == "__main__":
    run(main)
