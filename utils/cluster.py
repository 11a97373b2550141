"""The items of a command on a Dask cluster, whose workers need not have this project.

Its code goes to every worker, also to one that comes later. Only bytes travel, and functions that any Python reads:
the scheduler, which looks into what it passes on, needs no more than Dask.
"""

from __future__ import annotations

import asyncio
import io
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from utils.errors import UserError
from utils.fingerprint import fingerprint
from utils.options import option
from utils.progress import print_note
from utils.shards import ShardOptions

A = TypeVar("A")
B = TypeVar("B")

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("utils", "datasets", "networks", "phantoms", "distillation", "engine")
PLUGIN = "kidney-liver-distillation"
"""One name for every version of the code, so that a worker has only the last one that was sent."""
INSTALL = "pip install distributed==2026.8.0"
ADDRESS = re.compile(r"((tcp|tls|ws|wss|ucx)://)?(\[[^\[\]/\s]+\]|[^\[\]:/\s]+):\d{1,5}")
"""Of a scheduler, as Dask takes it; an IPv6 host is in brackets."""
WAIT = 10.0
"""Seconds within which a scheduler must answer."""


@dataclass(frozen=True)
class ClusterOptions(ShardOptions):
    """processes: one command as several, on folders that all of them see (docs/scaling.md)"""

    dask: str | None = option(
        None,
        "give the cases to the workers of a Dask cluster, whose scheduler is at this address",
        exclusive="processes",
        metavar="ADDRESS",
    )

    def __post_init__(self) -> None:
        if self.dask is not None and not ADDRESS.fullmatch(self.dask):
            raise UserError(f"--dask {self.dask!r}: is no scheduler's address; give one such as tcp://HOST:8786")

    def refuse_no_scheduler(self) -> None:
        """UserError if a scheduler is named that does not answer; to be called before any file is touched."""
        if self.dask is not None:
            try:
                asyncio.run(_try_to_connect(self.dask))
            except UserError:
                raise
            except Exception as error:  # Of Dask: each of its protocols has errors of its own.
                raise _no_answer(self.dask, error) from None


def as_it_is(function: Callable[[A], B]) -> Callable[[A], B]:
    """As `make`, in a partial: a function for which nothing is to be made first."""
    return function


def run_on_cluster(
    address: str, make: Callable[[], Callable[[A], B]], items: Sequence[A], name: Callable[[A], str]
) -> Iterator[tuple[A, B | UserError]]:
    """Each item with what the function makes of it, as they finish.

    make: is called once on each worker, for the function; like the items it must pickle, and what is in it of relative
    paths is sent as absolute ones. An item for which the function raises, or returns, an error is tried once more, on
    whichever worker is free, and then its UserError takes the place of a result, as it does where workers die of it.
    name: of an item, for messages. UserError if there is no such scheduler, or it goes away.
    """
    if not items:
        return
    distributed = _distributed()
    remote, work = _function(), _pickled((uuid4().hex, make))
    with _connected(address) as client:
        tries: dict[Any, tuple[A, int]] = {}

        def submit(item: A, number: int) -> Any:
            future = client.submit(remote, work, _pickled(item), pure=False)
            tries[future.key] = item, number
            return future

        completed = distributed.as_completed([submit(item, 1) for item in items], loop=client.loop)
        for future in completed:
            item, number = tries.pop(future.key)
            result = _result(future, address, name(item))
            if isinstance(result, UserError) and number == 1 and future.status == "finished":
                completed.add(submit(item, 2))
            else:
                yield item, result


def _result(future: Any, address: str, name: str) -> Any:
    """What came back, or a UserError that names the item where nothing did."""
    if future.status in ("cancelled", "lost"):
        raise UserError(f"--dask {address}: the scheduler has ended; start it and the same command again, to go on")
    try:
        return pickle.loads(future.result())
    except _distributed().KilledWorker:
        return UserError(
            f"{name}: its workers were killed, probably for lack of memory; give them more, or fewer threads"
        )
    except Exception as error:  # Of Dask, for those of the function come back as results.
        return UserError(f"{name}: {type(error).__name__}: {error}")


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise UserError(f"--dask: the package distributed is not installed; {INSTALL}") from None
    return distributed


async def _try_to_connect(address: str) -> None:
    """As a coroutine a client can be closed that was never connected; another would try to at the interpreter's end."""
    client = _distributed().Client(address, timeout=WAIT, set_as_default=False, asynchronous=True)
    try:
        # Its own time limit ends when a connection is made, which any server takes.
        await asyncio.wait_for(client, WAIT + 1.0)
    finally:
        await client.close()


def _no_answer(address: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or f"no answer within {WAIT:.0f} seconds"
    return UserError(f"--dask {address}: no scheduler answers there ({reason}); start one with dask scheduler")


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """A client of the cluster, whose workers have the code of this process."""
    try:
        client = _distributed().Client(address, timeout=WAIT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise _no_answer(address, error) from None
    with client:
        if not client.scheduler_info()["workers"]:
            print_note(f"--dask {address}: the cluster has no worker yet; waiting for one")
        client.register_plugin(_plugin(code_archive()), name=PLUGIN)
        yield client


def code_archive() -> bytes:
    """The project's packages, and the lists of what they require, as a zip file."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*")) if path.is_file()]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as content:
        for path in (*files, *sorted(ROOT.glob("requirements*.txt"))):
            if "__pycache__" not in path.parts:
                name = zipfile.ZipInfo(
                    path.relative_to(ROOT).as_posix()
                )  # without a time: the same code, the same bytes
                content.writestr(name, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return archive.getvalue()


class _AbsolutePaths(pickle.Pickler):
    """Relative paths as absolute ones, for workers are in other folders."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Path) and not value.is_absolute():
            return type(value), (str(value.absolute()),)
        return NotImplemented


def _pickled(value: Any) -> bytes:
    stream = io.BytesIO()
    _AbsolutePaths(stream).dump(value)
    return stream.getvalue()


def _function() -> Callable[[bytes, bytes], bytes]:
    """What workers call: defined in here, it travels as it is, and not as the name of a module."""

    def remote(work, item):  # type: ignore[no-untyped-def]
        from utils.on_worker import carry_out

        return carry_out(work, item)

    return remote


def _plugin(archive: bytes) -> Any:
    """Puts the code first on a worker's path; defined in here for the same reason."""
    plugin = _distributed().WorkerPlugin

    class Code(plugin):  # type: ignore[misc, valid-type]
        def __init__(self, archive, label, packages):  # type: ignore[no-untyped-def]
            self.archive, self.label, self.packages = archive, label, packages

        def setup(self, worker):  # type: ignore[no-untyped-def]
            import importlib
            import io
            import sys
            import zipfile
            from pathlib import Path

            folder = Path(worker.local_directory) / self.label
            if sys.path[0] == str(folder):
                return
            zipfile.ZipFile(io.BytesIO(self.archive)).extractall(folder)
            for name in [name for name in sys.modules if name.partition(".")[0] in self.packages]:
                del sys.modules[name]  # Of another version of the code, or of another project.
            sys.path.insert(0, str(folder))
            importlib.invalidate_caches()

    return Code(archive, f"{PLUGIN}-{fingerprint([archive.hex()])}", PACKAGES)  # type: ignore[no-untyped-call]
