"""Files that are written completely or not at all, and are still there after a power failure."""

from __future__ import annotations

import json
import os
import platform
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from utils.errors import UserError

UNFINISHED = ".writing-"
"""How the names of files begin that are being written, or were when their process was killed."""


@contextmanager
def atomic_write(path: Path, *, last: bool = True) -> Iterator[Path]:
    """Yields a temporary path to write to; it replaces `path` if the block ends without an error.

    The temporary name keeps all suffixes of `path`, from which nibabel and others infer the format. At the end the
    bytes are on the disk, and the new name too, unless other files follow in the folder and this is not the `last`.
    UserError if the file cannot be written; an earlier one is then left as it was.
    """
    # With the machine's name, for processes of several may write in one shared folder, and the thread's, for on a
    # cluster one process may do a case while it has not yet left off from doing the same for a client that is gone.
    writer = f"{platform.node()[:60]}-{os.getpid()}-{threading.get_native_id()}"
    temporary = path.with_name(f"{UNFINISHED}{writer}-{path.name}")
    with writing(path):
        make_folder(path.parent)
        try:
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            if last:
                _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """UserError for what the system says while `path` is written: a full disk, a folder that is read only."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); make room or give another path"
        ) from None


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name != "posix":
        return  # Windows opens no folders.
    number = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def remove_unfinished(folder: Path, names: Collection[str] | None = None) -> None:
    """Delete what killed processes were writing in a folder that is now used by this one alone.

    names: of the files that are this one's to write, where others of the folder may be of others.
    """
    for path in folder.glob(f"{UNFINISHED}*"):
        parts = path.name.split("-")
        if names is None or any("-".join(parts[start:]) in names for start in range(len(parts))):
            path.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder and its parents; UserError if that is not possible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be used as a folder ({error.strerror}); give another path") from None


def check_folder(path: Path) -> None:
    """UserError where a file is in the way of a folder that is to be made later; nothing is made."""
    nearest = next((each for each in (path, *path.parents) if each.exists()), path)
    if nearest.exists() and not nearest.is_dir():
        raise UserError(f"{path}: cannot be used as a folder ({nearest} is a file); give another path")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON, keys in the given order."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON, with or without a byte order mark; UserError if the file is missing or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from None
