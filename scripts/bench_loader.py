"""Times how slices come to the training device: from disk and from memory, plain and augmented.

    python scripts/bench_loader.py                                    # 256 slices of noise, on the CPU
    python scripts/bench_loader.py --device cuda --batch_size 64 --count 2048

The slices are noise of 512 x 512, whose middle 384 x 384 the network sees; those from disk have just been written, so
that they come from the operating system's memory. Printed are slices a second by the clock, and by the time of all
processor cores together, which other work on the machine changes less.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import _root  # noqa: F401

from utils.allocation import keep_freed_memory
from utils.errors import run
from utils.numbers import NonNegativeInt, PositiveInt
from utils.options import Parser, option

if TYPE_CHECKING:
    import torch

    from datasets.slices.slice_folder import SliceFolder


@dataclass(frozen=True)
class LoaderOptions:
    """loading: what, and how"""

    count: PositiveInt = option(256, "slices")
    size: PositiveInt = option(512, "pixels along each side of a slice, of which the network sees three quarters")
    batch_size: PositiveInt = option(8, "slices in a batch")
    workers: NonNegativeInt = option(0, "processes that load from disk")
    augment: tuple[str, ...] = option(("none", "paper", "mild"), "augmentations", metavar="NAME")
    repeats: PositiveInt = option(3, "passes over all slices; the median is printed")
    device: str = option("cpu", "auto, cpu, cuda, cuda:1 or mps")


def main() -> None:
    (options,) = Parser(__doc__).read(LoaderOptions)

    from engine.device import choose_device
    from phantoms.noise import write_noise

    device = choose_device(options.device)
    if device.type == "cpu":
        keep_freed_memory()  # As in training.
    print(f"{'':42}{'slices/s':>10}{'slices per core and s':>24}")
    with tempfile.TemporaryDirectory() as folder:
        slices = write_noise(Path(folder), options.size, options.count, 2)
        for name, seconds, of_cores in measure(options, slices, device):
            print(f"{name:42}{options.count / seconds:10.0f}{options.count / max(of_cores, 1e-9):24.0f}", flush=True)


def measure(options: LoaderOptions, slices: SliceFolder, device: torch.device) -> Iterator[tuple[str, float, float]]:
    """Each way, with the seconds by the clock and of all cores for one pass."""
    from datasets.frame import Frame
    from datasets.loader import SliceDataset, TrainingLoader
    from engine.training.cache import make_cache

    def passes(loader: TrainingLoader) -> Callable[[int], None]:
        def one(epoch: int) -> None:
            for _ in loader.between(epoch * loader.steps_per_epoch, (epoch + 1) * loader.steps_per_epoch):
                pass

        return one

    for augment in options.augment:
        dataset = SliceDataset(slices, slices.train, Frame(options.size), augment)

        def alone(epoch: int, dataset: SliceDataset = dataset) -> None:
            for i in range(len(dataset)):
                dataset[epoch, i]

        yield f"{augment}: from disk, one at a time", *timed(alone, options.repeats, device)
        loader = TrainingLoader(dataset, options.batch_size, options.workers, device=device)
        yield f"{augment}: from disk, in batches", *timed(passes(loader), options.repeats, device)
        cache = make_cache("device", dataset, device)
        assert cache is not None  # These slices are of one size.
        cached = TrainingLoader(dataset, options.batch_size, 0, device=device, cache=cache)
        yield f"{augment}: into memory, the first epoch", *timed(passes(cached), 1, device)
        yield f"{augment}: from memory, ready", *timed(passes(cached), options.repeats, device)
    items = [(0, i) for i in range(len(dataset))]
    batches = [items[i : i + options.batch_size] for i in range(0, len(items), options.batch_size)]

    def raw(_: int) -> None:
        for batch in batches:
            cache.load(batch)

    yield "from memory, raw", *timed(raw, options.repeats, device)


def timed(one: Callable[[int], None], repeats: int, device: torch.device) -> tuple[float, float]:
    """Medians of the seconds of a pass, by the clock and of all cores."""
    import torch

    clock, cores = [], []
    for epoch in range(repeats):
        start, of_cores = time.perf_counter(), time.process_time()
        one(epoch)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        clock.append(time.perf_counter() - start)
        cores.append(time.process_time() - of_cores)
    return median(clock), median(cores)


if __name__ == "__main__":
    run(main)
