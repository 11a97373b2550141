"""What a user sees when a command can't go on, on any terminal."""

from __future__ import annotations

import errno
import io
import os
import sys

import pytest

from utils.errors import UserError, run
from utils.progress import print_line, progress


def test_a_full_disk_is_one_line_wherever_it_is_met(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run/terms.jsonl")

    with pytest.raises(SystemExit) as end:
        run(main)
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        "error: run/terms.jsonl: cannot be written (No space left on device); make room, then run it again\n"
    )


def test_other_errors_of_the_system_keep_their_traceback() -> None:
    def main() -> None:
        raise PermissionError(errno.EACCES, "no")

    with pytest.raises(PermissionError):
        run(main)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_what_a_terminal_cannot_show_is_escaped(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """File names that are no text at all, too."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    text = "\u80be \u00b1 \udcff"

    def main() -> None:
        print(text)
        raise UserError(text)

    with pytest.raises(SystemExit):
        run(main)
    for stream, words in ((out, f"{text}\n"), (err, f"error: {text}\n")):
        stream.flush()
        assert stream.buffer.getvalue() == words.encode(encoding, "backslashreplace")


def test_an_error_amid_work_has_a_line_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        for _ in progress(range(3), "working"):
            print_line("step 1")
            raise UserError("the disk is full")

    with pytest.raises(SystemExit):
        run(main)
    printed = capfd.readouterr().err
    assert "working" in printed and printed.replace("\r", "\n").splitlines()[-1] == "error: the disk is full"
