"""What an exported file says about its network, in plain types that JSON holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from datasets.frame import Frame
from datasets.raw.segments import SegmentCode, segments_of
from engine.cost import network_cost
from engine.names import coded_name
from engine.provenance import provenance, shown_word
from engine.runtime.network import INPUT, OUTPUT
from engine.segmenter import Segmenter
from utils.files import read_json

KEPT = ("config", "metrics")
"""Of a checkpoint, what an evaluation and a model card need besides the description of the network."""


def describe_export(
    segmenter: Segmenter, checkpoint: Mapping[str, Any], path: Path, side: int | None
) -> dict[str, Any]:
    """The description of a checkpoint's network, its costs, its input and output, and where it comes from.

    path: the checkpoint's, beside which its run keeps the loss equation; side: the only size that its ONNX file takes.
    Of every path only the last component stays, and of the cases' names what `coded_name` makes of them. A safetensors
    file says itself what trained it.
    """
    labels = segmenter.label_map
    content = {
        **segmenter.description(),
        **{key: checkpoint[key] for key in KEPT if key in checkpoint},
        "cases": {part: [coded_name(name) for name in names] for part, names in checkpoint["cases"].items()},
        "loss": checkpoint.get("loss") or loss_equation(path, checkpoint["config"]),
        "folded_offsets": [],
        "cost": network_cost(segmenter),
        "codes": {str(label): code_of(code) for label, code in segments_of(segmenter.dataset, labels).items()},
        "input": {
            "name": INPUT,
            "shape": ["batch", 1, side or "height", side or "width"],
            "size": side,
            "crop": crop_of_resized(segmenter.frame),
            "values": "float32 from -1 to 1: the window's ends",
            "sizes": f"any batch, and {f'{side} x {side} pixels' if side else 'any height and width from 32 pixels'}",
        },
        "output": {"name": OUTPUT, "shape": ["batch", labels.num_classes, side or "height", side or "width"]},
        "trained_by": checkpoint.get("trained_by")
        or {key: checkpoint.get(key) for key in ("command", "commit", "packages")},
        "exported_by": provenance(torch.device("cpu")),
    }
    shown: dict[str, Any] = without_folders(content)
    return shown


def loss_equation(path: Path, config: Mapping[str, Any]) -> str | None:
    """What the run in the checkpoint's folder printed as its loss, if it is the same run; None where that is lost."""
    saved = path.with_name("config.json")
    about = read_json(saved) if saved.is_file() else None
    if not isinstance(about, dict) or any(about.get(key) != value for key, value in config.items()):
        return None
    return str(about.get("loss", "")) or None


def crop_of_resized(frame: Frame) -> list[list[int]] | None:
    """[start, stop] of rows and of columns of a slice resized to the frame's size; None where slices keep theirs."""
    return [list(window) for window in frame.crop_of((frame.size, frame.size))] if frame.size else None


def code_of(code: SegmentCode) -> dict[str, str]:
    """A coded concept as DICOM writes it."""
    return {"scheme": code.scheme, "value": code.value, "meaning": code.meaning}


def without_folders(content: Any) -> Any:
    """The same with only the last component of each path, in texts at any depth."""
    if isinstance(content, Mapping):
        return {key: without_folders(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_folders(value) for value in content]
    return " ".join(map(shown_word, content.split(" "))) if isinstance(content, str) else content
