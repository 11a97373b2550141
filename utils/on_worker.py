"""What a worker of a cluster does with the items that `utils.cluster` sends."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from functools import lru_cache
from threading import Lock
from typing import Any

from utils.errors import UserError

_making = Lock()


def carry_out(work: bytes, item: bytes) -> bytes:
    """The pickled result of a pickled item, or a UserError.

    work: the command's own token, and what makes the function that is called with each of its items.
    """
    try:
        with _making:
            function = _function_of(work)
        result = function(pickle.loads(item))
    except UserError as error:
        result = error
    except Exception as error:
        traceback.print_exc()
        result = UserError(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return pickle.dumps(result)


@lru_cache(maxsize=1)
def _function_of(work: bytes) -> Callable[[Any], Any]:
    """Made anew for each command, since a checkpoint or a list of cases may have changed between two."""
    _, make = pickle.loads(work)
    function: Callable[[Any], Any] = make()
    return function
