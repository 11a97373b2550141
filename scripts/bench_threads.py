"""Times training steps by how OpenMP's threads wait, on a quiet machine and next to processes that keep cores busy.

    python scripts/bench_threads.py                        # RAUNet, two threads, quiet and next to one busy process
    python scripts/bench_threads.py --model resnet_18 --busy 0 1 2 --repeats 9

Each way is a process of its own, for the choice is read when PyTorch is loaded; they take turns of a few steps, while
the others sleep. Medians of a step are printed. The machine must do nothing else.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from statistics import median

import _root  # noqa: F401

from utils.errors import run
from utils.numbers import NonNegativeInt, PositiveInt
from utils.options import Parser, option
from utils.waiting import SPINS

CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
OURS = "as this project"
WAYS: dict[str, dict[str, str]] = {
    "as PyTorch": {},
    "sleep at once": {"OMP_WAIT_POLICY": "passive"},
    OURS: {"GOMP_SPINCOUNT": str(SPINS)},
}
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class BenchOptions:
    """what is timed"""

    model: str = option("raunet", "the network's name")
    size: PositiveInt = option(128, "pixels along a side")
    batch_size: PositiveInt = option(8, "images in a batch")
    threads: PositiveInt = option(2, "that compute")
    busy: tuple[NonNegativeInt, ...] = option((0, 1), "other processes that keep a core busy", metavar="N")
    spins: tuple[NonNegativeInt, ...] = option((), "further numbers of turns to wait in a loop", metavar="N")
    steps: PositiveInt = option(2, "of a turn")
    repeats: PositiveInt = option(5, "turns of each way")


def main() -> None:
    (options,) = Parser(__doc__).read(BenchOptions)
    ways = {**WAYS, **{f"{spins} turns": {"GOMP_SPINCOUNT": str(spins)} for spins in options.spins}}
    workers = {name: start_worker(options, choice) for name, choice in ways.items()}
    for _, connection in workers.values():
        connection.recv()  # Ready.
    seconds: dict[tuple[str, int], list[float]] = {}
    for busy in options.busy:
        with busy_processes(busy):
            for _ in range(options.repeats):
                for name, (_, connection) in workers.items():
                    connection.send(options.steps)
                    seconds.setdefault((name, busy), []).append(connection.recv() / options.steps)
    for process, connection in workers.values():
        connection.send(0)
        process.join()
    print_table(options, list(ways), {key: median(values) for key, values in seconds.items()})


def print_table(options: BenchOptions, ways: list[str], medians: dict[tuple[str, int], float]) -> None:
    print(f"{options.model}, {options.batch_size} x {options.size} x {options.size}, {options.threads} threads")
    print(f"{'busy processes':16}" + "".join(f"{busy:>18}" for busy in options.busy))
    quiet = medians[ways[0], options.busy[0]]
    for name in ways:
        cells = (medians[name, busy] for busy in options.busy)
        print(f"{name:16}" + "".join(f"{1000 * cell:9.0f} ms x {cell / quiet:4.2f}" for cell in cells))


def start_worker(options: BenchOptions, choice: dict[str, str]) -> tuple[BaseProcess, Connection]:
    """A process that takes as many steps as it is told, and answers with their seconds; 0 ends it."""
    for name in CHOICES:
        os.environ.pop(name, None)
    os.environ.update(choice)
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=work, args=(theirs, options), daemon=True)
    process.start()
    return process, ours


def work(connection: Connection, options: BenchOptions) -> None:
    import torch
    from _noise_step import noise, step_on

    from networks import build

    torch.set_num_threads(options.threads)
    network = build(options.model, 2)
    step = step_on(noise(options.batch_size, options.size), network)
    for _ in range(2):
        step()
    connection.send(0.0)
    while steps := connection.recv():
        started = time.perf_counter()
        for _ in range(steps):
            step()
        connection.send(time.perf_counter() - started)


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Inside, so many processes do nothing as fast as they can."""
    processes = [SPAWN.Process(target=spin, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    time.sleep(2 if count else 0)  # Until they run.
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def spin() -> None:
    while True:
        pass


if __name__ == "__main__":
    run(main)
