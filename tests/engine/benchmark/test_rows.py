"""What a benchmark's command line means: its rows, and how flags override a preset."""

from __future__ import annotations

from typing import Any

import pytest

from engine.benchmark.options import read_command
from engine.benchmark.rows import distinct_rows, read_row
from utils.errors import UserError


def test_rows_are_methods_joined_by_a_slash() -> None:
    row = read_row("cwd,layers=e4+e5/recursive_feedback_ours:0.5/balance=1/unlabelled/schedule=decay")
    assert list(map(str, row.methods)) == ["cwd,layers=e4+e5", "hlfd:0.5"]
    assert (row.balance, row.unlabelled, row.schedule) == (1, True, "decay")
    assert row.name == "cwd,layers=e4+e5/hlfd:0.5/balance=1/unlabelled/schedule=decay"
    with pytest.raises(UserError, match="names no method"):
        read_row("balance=1")


def test_one_loss_has_one_row() -> None:
    given = ("dice_semimetric", "kd:0.5", "best", "kd:0.50", "kd/balance=1", "at,layers=e5", "at/kd", "kd/at")
    rows, repeated = distinct_rows([read_row(word) for word in given], ["malunet"], "unet", classes=2)
    assert [row.name for row in rows] == ["dice_semimetric", "kd:0.5", "kd/balance=1", "at", "at/kd"]
    assert repeated == {"kd/at": "at/kd"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", {"steps": 250, "batch_size": 4, "amp": "off"}),
        ("--epochs 3", {"steps": None, "epochs": 3, "batch_size": 4}),
        ("--preset full", {"steps": None, "epochs": 120, "val_every": 4, "batch_size": 8, "amp": "auto"}),
        ("--preset full --steps 7", {"steps": 7, "val_every": None, "batch_size": 8}),
        ("--preset full --steps 7 --val_every 2 --lr 0.1", {"steps": 7, "val_every": 2, "lr": 0.1}),
        ("--jobs 99", {"workers": 0}),
        ("--jobs 99 --workers 1", {"workers": 1}),
        ("--cache none", {"cache": "none"}),
    ],
)
def test_flags_override_the_preset(given: str, expected: dict[str, Any]) -> None:
    _, _, training = read_command(None, ["--teacher", "t.ckpt", "--students", "enet", *given.split()])
    assert {name: getattr(training, name) for name in expected} == expected
