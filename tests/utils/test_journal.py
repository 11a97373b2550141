"""Lines of what is done, also where a process was killed within one."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.errors import UserError
from utils.journal import add_line, read_lines


def test_what_was_added_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lines"
    assert read_lines(path) == []
    add_line(path, {"case": "a", "note": "two\nlines"})
    add_line(path, {"case": "b"})
    assert read_lines(path) == [{"case": "a", "note": "two\nlines"}, {"case": "b"}]


@pytest.mark.parametrize("torn", ['\n{"case": "b', "\n", '\n{"case": "\u00e4'.encode()[:-1].decode("latin-1"), "\n[1]"])
def test_a_torn_line_costs_only_itself(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "lines"
    add_line(path, {"case": "a"})
    with path.open("a", encoding="latin-1") as file:
        file.write(torn)
    assert read_lines(path) == [{"case": "a"}]
    add_line(path, {"case": "c"})
    assert read_lines(path) == [{"case": "a"}, {"case": "c"}]


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be used as a folder"):
        add_line(tmp_path / "file" / "lines", {})
