"""What cases are called in what is passed on: numbers as public data has them stay, anything else may be a patient."""

from __future__ import annotations

import re
from collections.abc import Iterable

NUMBERED = re.compile(
    r"(?:(?:case|volume|vol|patient|pat|subject|sub|scan|ct|mr|img|image|kidney|liver|pancreas|spleen|colon|lung|heart|la"
    r"|hepaticvessel|kits|lits|phantom)[-_ ]?)*\d{1,5}(?:[-_]\d{1,3})?",
    re.IGNORECASE,
)
"""Up to five digits: dates of birth and hospital numbers have more."""


def shown_names(names: Iterable[str]) -> dict[str, str]:
    """Case -> what a report calls it: its own name where that is only a number, else `case A1`, `case A2`, ..."""
    shown: dict[str, str] = {}
    hidden = 0
    for name in names:
        if name in shown:
            continue
        if NUMBERED.fullmatch(name):
            shown[name] = name
        else:
            hidden += 1
            shown[name] = f"case A{hidden}"
    return shown
