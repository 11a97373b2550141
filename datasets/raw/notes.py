"""Notes on cases: what is unusual in their files and not an error, said once for all cases that share it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")
NAMED_CASES = 3


def summarise_notes(notes: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for each kind of note, with its cases; notes that differ in numbers only are of one kind.

    notes: by the case's name. Of several cases the first one's numbers are shown.
    """
    kinds: dict[str, dict[str, str]] = {}
    for case, texts in notes.items():
        for text in texts:
            kinds.setdefault(NUMBER.sub("#", text), {}).setdefault(case, text)
    return [_line(list(cases), list(cases.values())) for cases in kinds.values()]


def _line(cases: Sequence[str], texts: Sequence[str]) -> str:
    if len(cases) == 1:
        return f"case {cases[0]}: {texts[0]}"
    more = ", ..." if len(cases) > NAMED_CASES else ""
    example = "" if len(set(texts)) == 1 else f"in {cases[0]}, "
    return f"{len(cases)} cases ({', '.join(cases[:NAMED_CASES])}{more}): {example}{texts[0]}"
