"""What scripts/evaluate.py wrote, read again: a summary, and beside it a table with a line for each case and region."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from utils.errors import UserError
from utils.files import read_json


def read_results(path: Path, keys: Sequence[str], columns: Sequence[str]) -> tuple[dict[str, Any], pd.DataFrame]:
    """The summary in `path` and its table, in which undefined or not available is NaN.

    keys, columns: what they must have at least; UserError if either lacks some, is missing or is something else.
    """
    summary, table = read_json(path), path.with_suffix(".csv")
    if not isinstance(summary, dict) or any(key not in summary for key in keys):
        raise UserError(f"{path}: is not a result of scripts/evaluate.py; give the file that its --outpath named")
    try:
        lines = pd.read_csv(table, dtype={"case": str, "region": str})
    except FileNotFoundError:
        raise UserError(f"{table}: no such file; it lies next to the .json that evaluate.py writes") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{table}: cannot be read as a table ({error}); evaluate again") from None
    if missing := [column for column in columns if column not in lines]:
        raise UserError(f"{table}: lacks the column {', '.join(missing)}; evaluate again")
    return summary, lines
