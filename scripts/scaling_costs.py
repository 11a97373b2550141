"""What thousands of volumes and a grid of runs would cost here, from what a few cost: time, memory, disk, and bounds.

    python scripts/scaling_costs.py                                           # phantoms of 512 x 512, a small network
    python scripts/scaling_costs.py --inpath RAW --dataset kits --ckpt best.ckpt --cases 4
    python scripts/scaling_costs.py --inpath RAW --ckpt best.ckpt --dask tcp://HOST:8786

SliceMaker, predict and evaluate do the first few cases as one process does, and predict once more when all is done:
that start is taken off. Then a benchmark trains the student alone and distilled. Everything else is computed: cases and
steps cost what these did, results of N cases are written once with N copies of a case. Seconds are of the processor
(cpu) and of the clock; on a GPU, or where others are at work on this machine, these differ.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import _root  # noqa: F401
from _memory import Cost, spend

from utils.cluster import as_it_is, run_on_cluster
from utils.cores import usable_cores
from utils.errors import run
from utils.files import read_json, write_json
from utils.journal import add_line
from utils.numbers import PositiveInt, int_from
from utils.options import Parser, option

COUNTS = (200, 2_000, 20_000)
NETWORKS = {"1 Gbit/s": 115e6, "10 Gbit/s": 1150e6}
"""What is left of them for files, in bytes a second."""
WRITTEN = 1 << 28
MIB_PER_GB = 1e9 / (1 << 20)


@dataclass(frozen=True)
class CostOptions:
    """what is measured"""

    inpath: Path | None = option(None, "raw cases (default: phantoms)")
    dataset: str = option("kits", "their layout")
    task: str = option("tumor", "organ, tumor, all, or a name of the data")
    ckpt: Path | None = option(None, "the network that predicts and teaches (default: --model, hardly trained)")
    model: str = option("resnet_18", "the student")
    method: str = option("hlfd", "with which it is distilled")
    cases: int = option(3, "how many, 3 or more: to train on, to validate on, to test", type=int_from(3))
    steps: PositiveInt = option(20, "of the measured trainings")
    batch_size: PositiveInt = option(4, "of them, and of those of the grid")
    runs: PositiveInt = option(300, "of the grid, half of them distilled")
    grid_steps: PositiveInt = option(250, "of a run of the grid")
    dask: str | None = option(None, "address of a scheduler: also how many cases a second it hands out")


class Rate(NamedTuple):
    """Of a command: what it spent on nothing and on so many cases; its input, its output, its record of all cases."""

    name: str
    start: Cost
    whole: Cost
    source: Path
    result: Path
    record: Path | None
    cases: int

    @property
    def cpu(self) -> float:
        """Seconds of a case."""
        return max(1e-3, self.whole.processor - self.start.processor) / self.cases

    @property
    def clock(self) -> float:
        return max(1e-3, self.whole.seconds - self.start.seconds) / self.cases

    @property
    def read(self) -> float:
        """Bytes of a case, its segmentation too."""
        return size_of(self.source) / self.cases

    @property
    def written(self) -> float:
        return size_of(self.result) / self.cases


def main() -> None:
    (options,) = Parser(__doc__).read(CostOptions)
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder))


def measure(options: CostOptions, folder: Path) -> None:
    """Everything, in a folder that is deleted afterwards."""
    raw = first_cases(options, folder / "raw")
    slices, predictions = folder / "slices", folder / "predictions"
    data = ("--dataset", options.dataset, "--task", options.task)
    cut = spend("scripts/SliceMaker.py", "--inpath", raw, "--outpath", slices, *data, "--workers", 1, *SPLIT)
    ckpt = options.ckpt or hardly_trained(options, slices, folder / "network")
    of_network = ("--ckpt", ckpt, "--inpath", raw)
    predicted = spend("scripts/predict.py", *of_network, "--outpath", predictions)
    start = spend("scripts/predict.py", *of_network, "--outpath", predictions)
    scored = spend(
        "scripts/evaluate.py", *of_network, "--dataset", options.dataset, "--outpath", folder / "scores" / "r.json"
    )
    recut = spend("scripts/SliceMaker.py", "--inpath", raw, "--outpath", slices, *data, "--workers", 1, *SPLIT)
    rates = [
        Rate("SliceMaker", recut, cut, raw, slices, record_in(slices, "cases.json"), options.cases),
        Rate("predict", start, predicted, raw, predictions, predictions / "run.json", options.cases),
        Rate("evaluate", start, scored, raw, folder / "scores", None, options.cases),
    ]
    show_volumes(rates, folder)
    show_bounds(rates, folder, options.dask)
    show_grid(options, slices, ckpt, folder / "bench")


SPLIT = ("--test_fraction", 0.34, "--val_fraction", 0.34)


def first_cases(options: CostOptions, folder: Path) -> Path:
    """A folder with as many of the cases as asked for, as links, or phantoms."""
    if options.inpath is None:
        spend("scripts/make_phantom.py", "--outpath", folder, "--cases", options.cases, "--slices", 100, 200)
        return folder
    entries = sorted(path for path in options.inpath.iterdir() if not path.name.startswith("."))
    folder.mkdir()
    for entry in entries[: options.cases]:
        (folder / entry.name).symlink_to(entry.absolute())
    return folder


def hardly_trained(options: CostOptions, slices: Path, folder: Path) -> Path:
    words = ("--model", options.model, "--train_data_path", slices, "--checkpoint_path", folder, "--steps", 1)
    spend("train.py", *words, "--dataset", options.dataset, "--task", options.task, "--batch_size", 1)
    return folder / "best.ckpt"


def size_of(folder: Path) -> int:
    """Bytes of all files below, also of those that links lead to."""
    below = [Path(place) / name for place, _, names in os.walk(folder, followlinks=True) for name in names]
    return sum(path.stat().st_size for path in below)


def record_in(folder: Path, name: str) -> Path:
    """The largest of the files of this name."""
    return max(folder.rglob(name), key=lambda path: path.stat().st_size)


def put_together(record: Path, count: int, folder: Path) -> tuple[float, int]:
    """Seconds to read and write a record of so many cases, and its bytes."""
    content = read_json(record)
    known = list(content["cases"].values())
    content["cases"] = {f"{number:05d}": known[number % len(known)] for number in range(count)}
    path = folder / "record.json"
    began = time.monotonic()
    write_json(path, content)
    read_json(path)
    return time.monotonic() - began, path.stat().st_size


def show_volumes(rates: Sequence[Rate], folder: Path) -> None:
    """A table of each command: what it costs one process, and its record of all cases."""
    for rate in rates:
        rows = {
            "hours of one process, cpu": [(rate.start.processor + count * rate.cpu) / 3600 for count in COUNTS],
            "hours by the clock": [(rate.start.seconds + count * rate.clock) / 3600 for count in COUNTS],
            "GB of memory": [rate.whole.mebibytes / MIB_PER_GB for _ in COUNTS],
            "GB read": [count * rate.read / 1e9 for count in COUNTS],
            "GB written": [count * rate.written / 1e9 for count in COUNTS],
        }
        if rate.record:
            ends = [put_together(rate.record, count, folder) for count in COUNTS]
            rows["s to write and read the record of all"] = [seconds for seconds, _ in ends]
            rows["MB of that record"] = [size / 1e6 for _, size in ends]
        print_table([rate.name, *(f"{count:,} volumes" for count in COUNTS)], rows)


def print_table(header: Sequence[str], rows: Mapping[str, Sequence[float]]) -> None:
    """In Markdown, three digits."""
    print(f"\n| {' | '.join(header)} |\n|---{'|--:' * (len(header) - 1)}|")
    for name, values in rows.items():
        print(f"| {name} | {' | '.join(f'{value:,.3g}' if value < 1000 else f'{value:,.0f}' for value in values)} |")


def show_bounds(rates: Sequence[Rate], folder: Path, dask: str | None) -> None:
    """From how many processes on something else than the cores is full."""
    disk = disk_rate(folder / "written")
    names = {**NETWORKS, f"this disk, {disk / 1e6:.0f} MB/s": disk}
    rows = {}
    for rate in rates:
        each = (rate.read + rate.written) / rate.cpu
        rows[f"{rate.name}, {each / 1e6:.1f} MB/s each"] = [most / each for most in names.values()]
    print_table(["processes that fill", *names], rows)
    began = time.monotonic()
    for number in range(200):
        add_line(folder / "lines", {"case": number})
    seconds = (time.monotonic() - began) / 200
    print(f"\na case that is done is written down in {1000 * seconds:.1f} ms; {usable_cores()} cores here")
    if dask:
        items = list(range(1000))
        began = time.monotonic()
        for _ in run_on_cluster(dask, partial(as_it_is, abs), items, str):
            pass
        print(f"the cluster takes {len(items) / (time.monotonic() - began):.0f} cases a second that cost nothing")


def disk_rate(path: Path) -> float:
    """Bytes a second that are on the disk."""
    content = os.urandom(1 << 24)
    began = time.monotonic()
    with path.open("wb") as file:
        for _ in range(WRITTEN // len(content)):
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
    seconds = time.monotonic() - began
    path.unlink()
    return WRITTEN / seconds


def show_grid(options: CostOptions, slices: Path, ckpt: Path, out: Path) -> None:
    words = ("--tckpt", ckpt, "--smodel", options.model, "--methods", options.method, "--seeds", 0, "--longer", 0)
    lengths = ("--steps", options.steps, "--batch_size", options.batch_size, "--no_distances")
    spent = spend("scripts/benchmark.py", *words, *lengths, "--train_data_path", slices, "--outpath", out)
    runs = [of_run(path) for path in sorted(out.glob("runs/*/*/*/result.json"))]
    rows = {name: [step, rest, size / 1e6] for name, step, rest, size in runs}
    print_table([f"a run of {options.steps} steps", "s of a step", "s of all else", "MB on disk"], rows)
    seconds = sum(step * options.grid_steps + rest for _, step, rest, _ in runs) / len(runs)
    size = sum(size for *_, size in runs) / len(runs)
    memory = spent.mebibytes / MIB_PER_GB
    print(
        f"\na grid of {options.runs} runs of {options.grid_steps} steps, half of them distilled: "
        f"{options.runs * seconds / 3600:.1f} hours by the clock of one process, {memory:.2f} GB of memory "
        f"for each at work, {options.runs * size / 1e9:.2f} GB of disk"
    )


def of_run(result: Path) -> tuple[str, float, float, int]:
    """The row, seconds of a step and of all else, and bytes that it leaves."""
    content: Any = read_json(result)
    step = content["step_ms"] / 1000
    whole = result.stat().st_mtime - (result.parent / "settings.json").stat().st_mtime
    return content["method"], step, max(0.0, whole - step * content["steps"]), size_of(result.parent)


if __name__ == "__main__":
    run(main)
