"""One process at a time at the same files."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.errors import UserError
from utils.files import make_folder, writing
from utils.progress import print_note


@contextmanager
def only_one(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; UserError if another process holds it, or wait until none does.

    what: is done there, for the message. The folder is made, and removed again if nothing else is left in it. The
    system frees the lock when its process ends, however that is. Where there are no such locks, as on Windows and some
    network drives, nothing is held.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    new = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    make_folder(path.parent)
    while True:
        with writing(path):
            number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(number, 200).decode(errors="replace") or "another process"
                if not wait:
                    raise UserError(f"{path.parent}: {holder} {what}; wait for it, or give another folder") from None
                print_note(f"{path.parent}: {holder} {what}; waiting for it")
                fcntl.flock(number, fcntl.LOCK_EX)
            except OSError:
                pass
            if not _is_at(path, number):
                continue  # Its holder has deleted it since it was opened.
            os.truncate(number, 0)
            os.write(number, f"process {os.getpid()} on {platform.node()}".encode())
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
                with suppress(OSError):
                    for folder in new:
                        folder.rmdir()
            return
        finally:
            os.close(number)


def _is_at(path: Path, number: int) -> bool:
    try:
        return os.path.samestat(os.fstat(number), path.stat())
    except FileNotFoundError:
        return False
