"""One process at a time at the same files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT
from utils.errors import UserError
from utils.lock import only_one

pytest.importorskip("fcntl")


def test_the_holder_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with only_one(lock, "works there"):
        with (
            pytest.raises(UserError, match=rf"process {os.getpid()} on .* waits; wait for it"),
            only_one(lock, "waits"),
        ):
            pytest.fail("two hold it")
        assert lock.exists()
    assert not lock.exists()
    with only_one(lock, "works there"):
        pass


def test_a_process_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    code = (
        "import os, signal; from pathlib import Path; from utils.lock import only_one\n"
        f"with only_one(Path({str(lock)!r}), 'works'):\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode < 0
    assert lock.exists()
    with only_one(lock, "works there"):
        assert str(os.getpid()) in lock.read_text()
    assert not lock.exists()
