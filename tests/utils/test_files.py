"""Files that are written completely or not at all, whatever happens in between."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from utils.errors import UserError
from utils.files import atomic_write, remove_unfinished, write_text


def die(*_: Any) -> None:
    """As SIGKILL does: nothing is cleaned up."""
    os._exit(9)


def in_a_process_that_dies(work: Callable[[], object]) -> None:
    number = os.fork()
    if number == 0:
        try:
            work()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == 9


@pytest.mark.parametrize(
    ("killed_in", "left"), [("write", "old"), ("fsync", "old"), ("replace", "old"), ("end", "new")]
)
def test_a_file_is_the_old_or_the_new_one_whenever_its_writer_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_in: str, left: str
) -> None:
    path = tmp_path / "last.ckpt"
    write_text(path, "old")

    def write() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("ne")
            if killed_in == "write":
                die()
            temporary.write_text("new")
        die()

    if killed_in == "fsync":
        monkeypatch.setattr(os, "fsync", die)
    if killed_in == "replace":
        monkeypatch.setattr(Path, "replace", die)
    in_a_process_that_dies(write)
    assert path.read_text() == left
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_bytes_are_on_the_disk_before_their_name_and_the_name_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(number: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else f"{os.fstat(number).st_size} bytes")
        fsync(number)

    def replaced(path: Path, target: Path) -> Path:
        done.append("name")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    write_text(tmp_path / "a.json", "12345")
    assert done == ["5 bytes", "name", "folder"]


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_leaves_the_earlier_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    path = tmp_path / "last.ckpt"
    write_text(path, "old")

    def full(number: int) -> None:
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=rf"last\.ckpt: cannot be written \({os.strerror(fault)}\); make room"):
        write_text(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
