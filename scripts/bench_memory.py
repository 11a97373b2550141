"""Times training steps on a CPU, with freed memory kept by the process and given back to the system.

    python scripts/bench_memory.py                                        # RAUNet to ResNet-18, HLFD
    python scripts/bench_memory.py --smodel malunet --kd hlfd cwd --size 128 --batch_size 8 --amp bf16

The two ways take turns; before each timed step comes one that is not, in which memory is found. Printed are medians:
milliseconds by the clock, of all cores together and of these in the system, and how many pages that had to zero.
"""

from __future__ import annotations

import resource
import tempfile
import time
from operator import sub
from pathlib import Path
from statistics import median
from typing import NamedTuple

import _root  # noqa: F401
from bench_step import StepOptions, make_steps

from utils.allocation import give_back_freed_memory, keep_freed_memory
from utils.errors import UserError, run
from utils.options import Parser

WAYS = {"given back": give_back_freed_memory, "kept": keep_freed_memory}


class Measured(NamedTuple):
    """Of one step: by the clock, of all cores together, of these in the system, and pages handed out."""

    seconds: float
    of_cores: float
    of_system: float
    pages: float


def main() -> None:
    (options,) = Parser(__doc__).read(StepOptions)

    from engine.device import choose_device

    if options.device != "cpu" or not keep_freed_memory():
        raise UserError("this can be said on a CPU only, of GNU's C library, where no MALLOC_ variable says it already")
    measured: dict[tuple[str, str], list[Measured]] = {}
    with tempfile.TemporaryDirectory() as folder:
        steps = make_steps(options, Path(folder), choose_device("cpu"))
    for _ in range(options.repeats):
        for way, say in WAYS.items():
            say()
            for name, step in steps.items():
                step()
                before = so_far()
                step()
                measured.setdefault((name, way), []).append(Measured(*map(sub, so_far(), before)))
    print(f"{'':30}{'freed memory':14}{'ms':>8}{'of cores':>10}{'of system':>11}{'pages':>8}")
    for name in steps:
        for way in WAYS:
            middle = Measured(*map(median, zip(*measured[name, way], strict=True)))
            ms = f"{1000 * middle.seconds:8.0f}{1000 * middle.of_cores:10.0f}{1000 * middle.of_system:11.0f}"
            print(f"{name:30}{way:14}{ms}{middle.pages:8.0f}")


def so_far() -> Measured:
    """Of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Measured(time.perf_counter(), used.ru_utime + used.ru_stime, used.ru_stime, used.ru_minflt)


if __name__ == "__main__":
    run(main)
