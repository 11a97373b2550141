"""torchrun's processes as one training: how they meet, and how they end together."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread

import torch
import torch.distributed as dist

from engine.options import TrainingOptions
from utils.errors import UserError, fail
from utils.ranks import is_rank

BEAT, SILENCE = 2.0, 30.0
"""Seconds between two signs of life, and without one until a process is taken for dead."""
LONGEST_WAIT = timedelta(hours=2)
"""For a rank that is at work: one may validate, or write, while the others wait."""


@contextmanager
def together(training: TrainingOptions) -> Iterator[TrainingOptions]:
    """Inside, the processes that torchrun has started are the ranks of one training; without torchrun, as before.

    Gives the options with this process's own device. Only the first rank prints. An error is told once, by whoever has
    it first, and ends all of them: those that wait for a dead one within a minute.
    """
    if not is_rank():
        yield training
        return
    training = replace(training, device=own_device(training.device))
    backend = "gloo" if training.device == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=LONGEST_WAIT)
    watch = Watch()
    watch.start()
    end = "failed"
    try:
        with _only_first_prints():
            yield training
        end = "ended"
    except KeyboardInterrupt:
        end = "ended"  # All ranks stop after the same step.
        raise
    except UserError as error:
        watch.tell(str(error))
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error).lower()):
            raise
        watch.tell(one_is_gone())
    finally:
        watch.end(end)
    dist.destroy_process_group()


def one_is_gone() -> str:
    return (
        "another process of this training has ended, so that this one cannot go on; the same command with --resume "
        "continues from the last checkpoint, also with another number of processes"
    )


def own_device(name: str) -> str:
    """The GPU of this process, or the CPU; UserError where there are too few, or one was picked for all."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if name not in ("auto", "cuda"):
        raise UserError(f"--device {name}: is one for all processes; give auto, cuda or cpu")
    place, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if place >= gpus:
        raise UserError(
            f"there are {gpus} GPUs here for {place + 1} processes; lower --nproc_per_node, or --device cpu"
        )
    torch.cuda.set_device(place)
    return f"cuda:{place}"


class Watch(Thread):
    """Tells the other ranks that this one lives, and ends it when one of them has stopped telling.

    Collective operations cannot do that: NCCL waits for a dead process until its time is over, and that has to be
    longer than the longest validation.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.rank, self.ranks, self.over = dist.get_rank(), dist.get_world_size(), Event()
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        # A connection of its own: others wait on the group's.
        self.store = dist.TCPStore(  # type: ignore[attr-defined]
            host, port, is_master=False, timeout=timedelta(seconds=SILENCE)
        )
        self.store.set(f"life/{self.rank}", "0")

    def run(self) -> None:
        heard = {other: ("", time.monotonic()) for other in range(self.ranks) if other != self.rank}
        beat = 0
        while not self.over.wait(BEAT):
            beat += 1
            try:
                self.store.set(f"life/{self.rank}", str(beat))
                for other, (before, since) in heard.items():
                    sign = self.store.get(f"life/{other}").decode()
                    if sign not in (before, "ended", "failed"):
                        heard[other] = (sign, time.monotonic())
                    elif sign == "failed" or (sign != "ended" and time.monotonic() - since > SILENCE):
                        self._give_up()
            except (RuntimeError, dist.DistError):
                self._give_up()

    def _give_up(self) -> None:
        """Also while the main thread waits for a dead process, and no exception would reach it."""
        if self.over.is_set():
            return
        with suppress(SystemExit):
            self.tell(one_is_gone())
        os._exit(2)

    def tell(self, message: str) -> None:
        """End with a message, unless another rank has told one already."""
        first = True
        with suppress(RuntimeError, dist.DistError):
            first = self.store.add("told", 1) == 1
        if not first:
            raise SystemExit(2)
        sys.stderr = sys.__stderr__ or sys.stderr
        fail(message)

    def end(self, how: str) -> None:
        """This rank has "ended", and the others may go on without it, or has "failed"."""
        self.over.set()
        with suppress(RuntimeError, dist.DistError):
            self.store.set(f"life/{self.rank}", how)


@contextmanager
def _only_first_prints() -> Iterator[None]:
    if dist.get_rank() == 0:
        yield
        return
    before = sys.stdout, sys.stderr
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        sys.stdout = sys.stderr = nowhere
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before
