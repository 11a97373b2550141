"""Runs in worker processes that are reused, since importing torch takes seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TypeVar

from utils.errors import UserError
from utils.parallel import follow_parent

T = TypeVar("T")

Failure = str | None
"""What went wrong, in one line."""


def run_all(items: Iterable[T], function: Callable[[T], None], jobs: int) -> Generator[tuple[T, Failure]]:
    """Call the function on each item: the items as they end, each with its failure, which stops no other.

    One job runs in this process, several in a process each, where one may also die (`function` and items must pickle).
    Closing the generator asks those at work to stop (SIGTERM) and waits until they have.
    """
    if jobs == 1:
        yield from ((item, attempt(function, item)) for item in items)
        return
    pending = deque(items)
    idle: list[Connection] = []
    busy: dict[Connection, T] = {}
    processes: dict[Connection, SpawnProcess] = {}
    try:
        while pending or busy:
            while pending and len(busy) < jobs:
                if not idle:
                    connection, process = _start_worker(function)
                    processes[connection] = process
                    idle.append(connection)
                connection = idle.pop()
                busy[connection] = pending.popleft()
                connection.send(busy[connection])
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                item = busy.pop(ready)
                try:
                    failure = ready.recv()
                    idle.append(ready)
                except (EOFError, ConnectionResetError):
                    failure = "its process died, perhaps for lack of memory; try fewer --jobs"
                yield item, failure
    finally:
        for connection, process in processes.items():
            if connection in busy:
                process.terminate()
            connection.close()
        for process in processes.values():
            process.join()


def attempt(function: Callable[[T], None], item: T) -> Failure:
    """Call the function; None if it returns."""
    try:
        function(item)
    except UserError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return None


def _start_worker(function: Callable[[T], None]) -> tuple[Connection, SpawnProcess]:
    """A new process, and the connection that takes its items and gives their failures."""
    context = get_context("spawn")
    connection, end = context.Pipe()
    process = context.Process(target=_work, args=(end, function))
    process.start()
    # Only the worker may hold this end, or its death would not be noticed.
    end.close()
    return connection, process


def _work(connection: Connection, function: Callable[[T], None]) -> None:
    """Call the function on what comes through the connection until it closes or the user interrupts."""
    follow_parent()
    try:
        while True:
            connection.send(attempt(function, connection.recv()))
    except (EOFError, KeyboardInterrupt):
        return
