"""Errors that the user can fix, reported in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """Wrong usage or invalid input. The message is one line that names the file and says what to do."""


def run(main: Callable[[], None]) -> None:
    """Run an entry point: a `UserError` becomes one line on stderr and exit status 2."""
    try:
        main()
    except UserError as error:
        # If a loader's worker process raised it, its message contains that process's traceback.
        message = " ".join(str(error).rpartition("UserError: ")[2].split())
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
