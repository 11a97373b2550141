"""Errors that a user can mend, told in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """Bad usage or bad input. The message is one line that names the file and says what to do."""


def run(main: Callable[[], None]) -> None:
    """Run an entry point: a `UserError` becomes one line on stderr and exit status 2."""
    try:
        main()
    except UserError as error:
        # One raised in a loading process arrives with that process's traceback before it.
        message = " ".join(str(error).rpartition("UserError: ")[2].split())
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
