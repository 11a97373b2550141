"""What cases are called in what is passed on: numbers as public data has them stay, anything else may be a patient."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from utils.fingerprint import fingerprint

NUMBERED = re.compile(
    r"(?:(?:case|volume|vol|patient|pat|subject|sub|scan|ct|mr|img|image|kidney|liver|pancreas|spleen|colon|lung|heart|la"
    r"|hepaticvessel|kits|lits|phantom)[-_ ]?)*\d{1,5}(?:[-_]\d{1,3})?",
    re.IGNORECASE,
)
"""Up to five digits: dates of birth and hospital numbers have more."""
CODED = re.compile(r"case [0-9a-f]{12}")


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


def print_hidden(shown: Mapping[str, str], where: str = "The page") -> None:
    """Say what a report calls the cases whose names it hides: only here, for the report is passed on."""
    hidden = {name: case for name, case in shown.items() if name != case}
    if hidden:
        print(f"{where} hides names that may be of patients: " + ", ".join(f"{b} is {a}" for a, b in hidden.items()))


def hide_names(text: str, shown: Mapping[str, str]) -> str:
    """A text, such as a command, with the names of cases as `shown_names` shows them."""
    for name in sorted(shown, key=len, reverse=True):
        if shown[name] != name:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", shown[name], text)
    return text


def coded_name(name: str) -> str:
    """What an exported network calls a case that trained it: its number, else `case` and a digest, to tell it again.

    A digest is no secret: whoever has a list of names can try them.
    """
    return name if NUMBERED.fullmatch(name) or CODED.fullmatch(name) else f"case {fingerprint([name])}"
