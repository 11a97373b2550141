"""Work that is done in a thread: before its result is needed, or after its input was made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Event, Semaphore, Thread
from typing import Any, TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T], depth: int = 1) -> Iterator[T]:
    """`items`, made in a thread of their own: `depth` of them at most exist, or are being made, before they are taken.

    An error while one is made is raised here, after those before it. The thread ends with the iteration, however that
    ends.
    """
    made: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
    places, stopped = Semaphore(depth), Event()

    def make() -> None:
        try:
            iterator = iter(items)
            while True:
                places.acquire()
                if stopped.is_set():
                    return
                made.put((next(iterator), None))
        except BaseException as error:  # StopIteration is one of them.
            made.put((None, error))

    thread = Thread(target=make, daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            places.release()
            yield item  # type: ignore[misc]
            item = None  # What was taken may be large, and the next one takes its place.
    finally:
        stopped.set()
        places.release()
        thread.join()
        with suppress(Empty):
            while True:
                made.get_nowait()


@contextmanager
def one_behind() -> Iterator[Callable[..., None]]:
    """Yields a function that calls another one, with its arguments, in a thread, after the call before has ended.

    It waits for that one, so that a single call is under way; an error in a call is raised by the next, or at the end.
    """
    with ThreadPoolExecutor(1) as thread:
        before: Future[Any] | None = None

        def call(work: Callable[..., Any], *arguments: Any) -> None:
            nonlocal before
            if before is not None:
                before.result()
            before = thread.submit(work, *arguments)

        yield call
        if before is not None:
            before.result()
