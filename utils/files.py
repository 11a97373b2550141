"""Files that are either whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from utils.errors import UserError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write to the path this yields; it takes the place of `path` only when the block ends well.

    The temporary name keeps every suffix of `path`, since writers such as nibabel go by it. UserError if the
    system refuses.
    """
    temporary = path.with_name(f".writing-{os.getpid()}-{path.name}")
    try:
        make_folder(path.parent)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); make room or give another path"
        ) from None


def make_folder(path: Path) -> None:
    """Make a folder and those above it; UserError if something else is in the way."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be used as a folder ({error.strerror}); give another path") from None


def write_json(path: Path, content: Any) -> None:
    """Write JSON that people read: indented, keys in the order given."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON; UserError if the file is missing or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from None
