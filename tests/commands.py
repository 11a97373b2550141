"""The project's commands as a test types them: as real processes, or faster in this one."""

from __future__ import annotations

import contextlib
import io
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from tests.paths import ROOT, SCRIPTS


class Done(NamedTuple):
    """What a command that has ended leaves."""

    returncode: int
    stdout: str
    stderr: str


def in_process(script: str, *words: object) -> Done:
    """Run a script in this process, which has loaded PyTorch already."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with (
        mock.patch.object(sys, "argv", [str(ROOT / script), *map(str, words)]),
        mock.patch.object(sys, "path", [str(SCRIPTS), *sys.path]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Done(status, out.getvalue(), err.getvalue())


def as_process(script: str, *words: object, cwd: Path = ROOT) -> Done:
    """Run a script as a user does."""
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, words)], capture_output=True, text=True, cwd=cwd
    )
    return Done(done.returncode, done.stdout, done.stderr)


def killed_after(count: int, function: Callable[..., object]) -> Callable[..., object]:
    """The function, until the process that calls it is killed."""
    calls = iter(range(count))

    def counted(*arguments: object, **named: object) -> object:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return function(*arguments, **named)

    return counted


def output_of(done: Done) -> str:
    """What a command that ended well printed."""
    assert done.returncode == 0, done.stderr
    return done.stdout


def error_of(done: Done) -> str:
    """The one line, progress bars aside, that a command writes to stderr when the user can correct it."""
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.strip() and "%|" not in line]
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    return lines[0]


def files_in(folder: Path, *but: str) -> dict[str, bytes]:
    """What a command left, except for files of these names."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in but)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def without_seconds(path: Path) -> list[list[str]]:
    """The cells of a CSV file, but what was measured."""
    lines = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
    place = lines[0].index("seconds")
    return [line[:place] + line[place + 1 :] for line in lines]
