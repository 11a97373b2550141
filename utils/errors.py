"""Errors that the user can fix, reported in one line."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from utils.waiting import spin_briefly

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UserError(Exception):
    """Wrong usage or invalid input. The message is one line that names the file and says what to do."""


def join_errors(errors: Sequence[str], most: int = 3) -> str:
    """The first few errors of many cases, and how many more there are: they tend to be of one kind."""
    more = [f"and {len(errors) - most} more"] if len(errors) > most else []
    return "; ".join([*errors[:most], *more])


def run(main: Callable[[], None]) -> None:
    """Run an entry point: a `UserError`, or a full disk, becomes one line on stderr and exit status 2."""
    print_anything()
    spin_briefly()
    try:
        main()
    except UserError as error:
        # If a loader's worker process raised it, its message contains that process's traceback.
        fail(str(error).rpartition("UserError: ")[2])
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        fail(f"{error.filename or 'the disk'}: cannot be written ({error.strerror}); make room, then run it again")
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def fail(message: str) -> NoReturn:
    """One line on stderr, and exit status 2."""
    with suppress(OSError):  # The disk that is full may be the one that output goes to.
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(2) from None


def print_anything() -> None:
    """Write characters that the terminal, or the file that output goes to, does not have as escapes such as \\xb1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
