"""Checkpoint files: dicts of tensors, strings, numbers, lists and dicts, read without running code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from utils.errors import UserError
from utils.files import atomic_write

FORMAT = 3
"""Of what is written. Networks of formats 1, which had no number, and 2 are read, their runs can't be resumed."""


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write `content` so that `torch.load(weights_only=True)` reads it back."""
    # PyTorch writes a path's own name into the file, and a temporary one differs from launch to launch.
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        torch.save({"format": FORMAT, **content}, file)


def load_checkpoint(path: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read a checkpoint; UserError if it is missing, damaged, not one of this project's, or of a later version."""
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; train.py writes best.ckpt and last.ckpt")
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: is not a checkpoint that can be read ({reason})") from None
    if not isinstance(content, dict) or "weights" not in content:
        raise UserError(f"{path}: holds no network weights; give a checkpoint that train.py or train_kd.py wrote")
    if content.get("format", 1) not in (1, 2, FORMAT):
        raise UserError(f"{path}: has the unknown checkpoint format {content['format']!r}; update the code to read it")
    return content
