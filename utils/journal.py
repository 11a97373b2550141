"""What is done so far, a line at a time: adding one costs the same however many there are."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.files import make_folder, writing


def add_line(path: Path, content: Mapping[str, Any]) -> None:
    """Add a line of JSON, which is on the disk afterwards; UserError if that fails.

    It begins with a line break, in case that a process was killed within the line before.
    """
    make_folder(path.parent)
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write("\n" + json.dumps(content, separators=(",", ":")))
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All lines that are complete; none if there is no file."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    contents = map(_content, filter(None, text.split("\n")))
    return [content for content in contents if isinstance(content, dict)]


def _content(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
