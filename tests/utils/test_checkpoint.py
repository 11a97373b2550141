"""Checkpoints: which formats are read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from utils.checkpoint import FORMAT, load_checkpoint, save_checkpoint
from utils.errors import UserError


def test_what_is_saved_is_read_with_its_format(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.ckpt", {"weights": {"w": torch.ones(2)}})
    content = load_checkpoint(tmp_path / "a.ckpt")
    assert content["format"] == FORMAT and torch.equal(content["weights"]["w"], torch.ones(2))


@pytest.mark.parametrize("number", [{}, {"format": 1}, {"format": 2}])
def test_earlier_formats_are_read(tmp_path: Path, number: dict[str, int]) -> None:
    torch.save({"weights": {}, "model": "raunet", **number}, tmp_path / "a.ckpt")
    assert load_checkpoint(tmp_path / "a.ckpt")["model"] == "raunet"


@pytest.mark.parametrize("number", [0, FORMAT + 1, "new"])
def test_an_unknown_format_is_refused(tmp_path: Path, number: object) -> None:
    torch.save({"weights": {}, "format": number}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"a\.ckpt: has the unknown checkpoint format .*; update the code"):
        load_checkpoint(tmp_path / "a.ckpt")
