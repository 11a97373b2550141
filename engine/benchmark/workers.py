"""Many pieces of work in a few processes that live on, since importing torch takes seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TypeVar

from utils.errors import UserError

T = TypeVar("T")

Failure = str | None
"""One line that tells what went wrong, or None."""


def run_all(work: Iterable[T], perform: Callable[[T], None], jobs: int) -> Iterator[tuple[T, Failure]]:
    """Each piece with its outcome, as they end; one that fails, or takes its process with it, ends alone.

    One job runs in this process; of more, each has its own (`perform` and the pieces must pickle). Closing
    the iterator asks those at work to stop (SIGTERM) and waits until they have.
    """
    if jobs == 1:
        yield from ((piece, attempt(perform, piece)) for piece in work)
        return
    context = get_context("spawn")
    pending = deque(work)
    idle: list[Connection] = []
    busy: dict[Connection, T] = {}
    processes: dict[Connection, SpawnProcess] = {}
    try:
        while pending or busy:
            while pending and len(busy) < jobs:
                if not idle:
                    ours, theirs = context.Pipe()
                    processes[ours] = context.Process(target=_serve, args=(theirs, perform))
                    processes[ours].start()
                    theirs.close()
                    idle.append(ours)
                connection = idle.pop()
                busy[connection] = pending.popleft()
                connection.send(busy[connection])
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                piece = busy.pop(ready)
                try:
                    failure = ready.recv()
                    idle.append(ready)
                except (EOFError, ConnectionResetError):
                    failure = "its process died, perhaps for want of memory; try fewer --jobs"
                yield piece, failure
    finally:
        for connection, process in processes.items():
            if connection in busy:
                process.terminate()
            connection.close()
        for process in processes.values():
            process.join()


def attempt(perform: Callable[[T], None], piece: T) -> Failure:
    """What went wrong, in one line."""
    try:
        perform(piece)
    except UserError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return None


def _serve(connection: Connection, perform: Callable[[T], None]) -> None:
    """Do what comes through the connection until it closes or the user stops it."""
    try:
        while True:
            connection.send(attempt(perform, connection.recv()))
    except (EOFError, KeyboardInterrupt):
        return
