"""An ONNX file with the metadata of an export, made without an exporter, which takes seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from datasets.labels import organ_and_tumor
from engine.runtime.metadata import FORMAT, KEY

CONTENT = {
    "format": FORMAT,
    "model": "enet",
    "classes": 2,
    "dataset": "kits",
    "task": organ_and_tumor()["tumor"].to_dict(),
    "frame": {"size": 32, "crop": 0},
    "window": [-200.0, 300.0],
    "offsets": [],
    "channel": None,
    "hounsfield": True,
    "config": {},
    "cases": {"train": ["0"], "val": ["1"]},
    "folded_offsets": [0.5],
    "input": {"size": None},
    "cost": {"parameters": 10, "gmacs": 0.1, "gmacs_at": 32},
}


def small_onnx(path: Path, content: Mapping[str, Any] = CONTENT, classes: int = 2) -> Path:
    """One convolution from an image [B, 1, H, W] to logits [B, classes, H, W]."""
    tensor, number = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    weights = np.arange(classes * 9, dtype=np.float32).reshape(classes, 1, 3, 3) / 10
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["image", "weights"], ["logits"], pads=[1, 1, 1, 1])],
        "network",
        [tensor("image", number, ["batch", 1, "height", "width"])],
        [tensor("logits", number, ["batch", classes, "height", "width"])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    model.metadata_props.add(key=KEY, value=json.dumps(dict(content)))
    path.write_bytes(model.SerializeToString())
    return path
