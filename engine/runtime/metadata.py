"""What an exported file says about its network: one JSON text, under the same key in ONNX and safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.checkpoint import shorten
from utils.errors import UserError

KEY = "segmenter"
FORMAT = 1
ADVICE = "give a file that scripts/export.py wrote"


def encode(content: Mapping[str, Any]) -> str:
    """The text for a file's metadata; content: what a checkpoint has, without weights, and what the export adds."""
    return json.dumps({"format": FORMAT, **content})


def decode(text: str | None, path: Path) -> dict[str, Any]:
    """What `encode` was given; UserError, with the file's `path`, for anything else.

    Checked here is what `load_segmenter` does not look at: configuration, cases, costs and the folded decision.
    """
    if text is None:
        raise UserError(f"{path}: does not say what network it is (no {KEY!r} in its metadata); {ADVICE}")
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise UserError(f"{path}: has the unknown export format {content['format']!r}; update the code to read it")
        checks = {
            "config": isinstance(content["config"], dict),
            "cases": all(isinstance(name, str) for part in ("train", "val") for name in content["cases"][part]),
            "cost": all(isinstance(content["cost"][key], int | float) for key in ("parameters", "gmacs", "gmacs_at")),
            "input": (size := content["input"]["size"]) is None or 16 <= size <= 4096,
            "folded_offsets": all(isinstance(offset, float) for offset in content["folded_offsets"]),
        }
        if wrong := [name for name, good in checks.items() if not good]:
            raise ValueError(f"{wrong[0]} is not what an export writes")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        reason = shorten([f"{type(error).__name__}: {error}"])
        raise UserError(f"{path}: its metadata is damaged ({reason}); {ADVICE}") from None
    return dict(content)
