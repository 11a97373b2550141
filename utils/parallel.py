"""Independent items processed in several worker processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_all_start_methods, get_context, parent_process
from multiprocessing.context import BaseContext
from threading import Thread
from typing import TypeVar

from utils.errors import UserError

A = TypeVar("A")
B = TypeVar("B")


def run_in_processes(function: Callable[[A], B], items: Sequence[A], workers: int) -> Iterator[tuple[A, B]]:
    """Each item with its result, as they finish; with one worker or one item, in this process.

    The workers hold nothing but what the module of `function` imports. UserError if one of them is killed.
    """
    if workers == 1 or len(items) < 2:
        yield from ((item, function(item)) for item in items)
        return
    pool = ProcessPoolExecutor(
        min(workers, len(items)),
        mp_context=_new_processes(function.__module__),
        initializer=_prepare_worker,
    )
    try:
        futures = {pool.submit(function, item): item for item in items}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        raise UserError("a worker process was killed, probably for lack of memory; give fewer --workers") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare_worker() -> None:
    """Leave Ctrl-C to the process that has started this one, but end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    follow_parent()


def follow_parent() -> None:
    """End this process, as SIGTERM does, when the one that started it has ended, however that was.

    The same command may soon be started again, and be at the same files.
    """
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=follow, daemon=True).start()


def _new_processes(module: str) -> BaseContext:
    """Processes that do not share this one's memory; where possible, forks of one that has imported `module`."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([module])
    return context
