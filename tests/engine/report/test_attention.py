"""What a report takes of a folder that scripts/explain.py wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.report import attention
from engine.report.attention import PNG, read_attention


def test_pictures_have_room_and_the_rest_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [{"file": f"{number}.png", "caption": f"case A{number}"} for number in range(3)]
    for each in pictures:
        (tmp_path / each["file"]).write_bytes(PNG + bytes(100))
    numbers = {"mass": 0.25, "low": None, "high": None, "chance": 0.1, "times_chance": 2.5}
    counts = {"cases": 1, "slices": 4, "empty": 1}
    line = {"method": "gcam", "layer": "e5", "network": "student", **numbers, **counts}
    content = {"attention": [line], "methods": {"gcam": "Grad-CAM"}, "compared": None, "target": "tumor"}
    content |= {"pictures": pictures, "digests": {"student": "0123"}, "notice": "as it was measured"}
    (tmp_path / "attention.json").write_text(json.dumps(content))
    monkeypatch.setattr(attention, "MOST_BYTES", 2 * len(PNG + bytes(100)))

    section = read_attention(tmp_path, {"teacher": "4567", "student": "0123"})
    assert [caption for caption, _ in section.pictures] == ["case A0", "case A1"] and section.left_out == 1
    assert section.tables[0].iloc[0].tolist() == [
        "Grad-CAM, e5", "student", "0.250", "n/a", "0.100", "2.5", "1", "1 of 4"
    ]  # fmt: skip
    assert section.notes[0] == "as it was measured" and "case A1, case A2" in section.notes[1]
