"""A Dask cluster as an administrator starts it: from another folder, by Dask's own commands, without the project."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import distributed

THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class LocalCluster(NamedTuple):
    """address: of the scheduler; scheduler: its process; client: to look into it."""

    address: str
    scheduler: subprocess.Popen[bytes]
    client: distributed.Client

    def kill_one(self) -> None:
        """Kill a worker that is at work; its nanny starts another."""
        while not (busy := [worker for worker, keys in self.client.processing().items() if keys]):
            time.sleep(0.01)
        (pid,) = self.client.run(os.getpid, workers=busy[:1]).values()
        os.kill(pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@contextlib.contextmanager
def cluster(folder: Path, workers: int = 2) -> Iterator[LocalCluster]:
    """A scheduler, and workers of one thread each, in a folder of their own."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: object) -> subprocess.Popen[bytes]:
        # Not in this repository, whose folder would be on the path.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | THREADS
        command = [str(Path(sys.executable).with_name("dask")), *map(str, words)]
        with (folder / f"{words[0]}_{len(started)}.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        started.append(process)
        return process

    told = folder / "scheduler.json"
    try:
        scheduler = start("scheduler", "--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--scheduler-file", told)
        for _ in range(workers):
            start("worker", "--scheduler-file", told, "--nthreads", 1, "--no-dashboard", "--local-directory", folder)
        with distributed.Client(scheduler_file=str(told), set_as_default=False, timeout=60) as client:
            if workers:
                client.wait_for_workers(workers, timeout=120)
            yield LocalCluster(client.scheduler.address, scheduler, client)
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(timeout=60)
