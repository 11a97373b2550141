"""Where the networks of a report look: what scripts/explain.py left in a folder, as a section of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from engine.report.attention_tables import ATTENTION_FILE, attention_tables
from utils.errors import UserError
from utils.files import read_json

PNG = b"\x89PNG\r\n\x1a\n"
MOST_BYTES = 10_000_000
"""Of pictures, as of a case of the viewer; those in front are the slices with the largest gain and loss."""


@dataclass(frozen=True)
class AttentionSection:
    """target: the class that was looked for; pictures: (caption, PNG file); left_out: how many were too many.

    notes: how the numbers came about, and what differs in names from the rest of the page.
    """

    target: str
    tables: Sequence[pd.DataFrame]
    pictures: Sequence[tuple[str, bytes]]
    left_out: int
    notes: Sequence[str]


def read_attention(folder: Path, networks: Mapping[str, str]) -> AttentionSection:
    """networks: name in the page -> digest of its checkpoint.

    UserError if the folder is none of scripts/explain.py, or if one of its networks is not in the page.
    """
    path = folder / ATTENTION_FILE
    content = read_json(path)
    try:
        names = _names_in_page(path, content["digests"], networks)
        files = [(str(each["caption"]), folder / Path(each["file"]).name) for each in content["pictures"]]
        tables, target, notice = attention_tables(content), str(content["target"]), str(content["notice"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{path}: is not what explain.py of this version writes; run it again") from None
    pictures = [(caption, _read_picture(file)) for caption, file in files]
    room, shown = MOST_BYTES, 0
    for _, png in pictures:
        room -= len(png)
        shown += room >= 0
    notes = [notice, *names]
    if any("case A" in caption for caption, _ in pictures):
        notes.append("Cases that are called case A1, case A2, ... here may be others than those called so above.")
    return AttentionSection(target, tables, pictures[:shown], len(pictures) - shown, notes)


def _names_in_page(path: Path, digests: Mapping[str, str], networks: Mapping[str, str]) -> list[str]:
    """A sentence on the networks that have another name in the page, where there are any."""
    in_page = {digest: name for name, digest in networks.items()}
    if strange := [name for name, digest in digests.items() if digest not in in_page]:
        raise UserError(
            f"{path}: its network {strange[0]} is none of the page, which is of {', '.join(networks)}; give explain.py "
            "and report.py the same files"
        )
    others = [f"{name} is {in_page[digest]} above" for name, digest in digests.items() if name != in_page[digest]]
    return [f"In this section {', '.join(others)}."] if others else []


def _read_picture(path: Path) -> bytes:
    try:
        png = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); run explain.py again") from None
    if not png.startswith(PNG):
        raise UserError(f"{path}: is no PNG file; run explain.py again")
    return png
