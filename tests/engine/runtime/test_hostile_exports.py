"""Exported files from others: damaged, of something else, or made to do harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from engine.options import PredictionOptions
from engine.runtime.metadata import KEY
from engine.saved_segmenter import open_segmenter
from tests.onnx_files import CONTENT, small_onnx
from utils.errors import UserError


def refused(path: Path, match: str | None, **options: Any) -> None:
    with pytest.raises(UserError, match=match) as error:
        open_segmenter(PredictionOptions(path, **options))
    assert str(error.value).startswith(f"{path}: ") or options
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_a_small_file_is_read(tmp_path: Path) -> None:
    segmenter, content = open_segmenter(PredictionOptions(small_onnx(tmp_path / "model.onnx")))
    labels = segmenter.segment(np.array([[[-300, 400] * 20] * 40], np.int16), (-200.0, 300.0))
    assert segmenter.offsets == (0.5,) and content["cases"] == {"train": ["0"], "val": ["1"]}
    assert labels.shape == (1, 40, 40)


def test_an_onnx_file_that_is_cut_short(tmp_path: Path) -> None:
    path = small_onnx(tmp_path / "model.onnx")
    path.write_bytes(path.read_bytes()[:-20])
    refused(path, "is not an ONNX file .*cut short")
    path.write_bytes(b"")
    refused(path, "does not say what network it is")
    refused(tmp_path / "no.onnx", "no such file; scripts/export.py writes one")
    (tmp_path / "folder.onnx").mkdir()
    refused(tmp_path / "folder.onnx", "cannot be read")


@pytest.mark.parametrize("place", ["../secret.bin", "/etc/hostname", "weights.bin"])
def test_tensors_in_other_files_are_never_opened(tmp_path: Path, place: str) -> None:
    """In a branch of a node, too, where a checker of the graph's own tensors would not find them."""
    path = small_onnx(tmp_path / "model.onnx")
    model = onnx.load(path)
    tensor = onnx.TensorProto(name="weight", data_type=onnx.TensorProto.FLOAT, dims=[4], data_location=1)
    tensor.external_data.add(key="location", value=place)
    branch = onnx.GraphProto(name="branch", initializer=[tensor])
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("hidden", branch))
    path.write_bytes(model.SerializeToString())
    refused(path, "keeps tensors in other files, which are never opened")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda model: model.opset_import[0].__setattr__("version", 999), "is no model that ONNX Runtime can run"),
        (lambda model: model.graph.node[0].__setattr__("op_type", "Run"), "is no model that ONNX Runtime can run"),
        (lambda model: model.graph.node[0].__setattr__("domain", "x"), "is no model that ONNX Runtime can run"),
        (lambda model: model.graph.input[0].__setattr__("name", "x"), "is no model that ONNX Runtime can run"),
        (lambda model: model.metadata_props.pop(), "does not say what network it is"),
    ],
)
def test_an_onnx_file_of_something_else(tmp_path: Path, change: Callable[[Any], object], match: str) -> None:
    path = small_onnx(tmp_path / "model.onnx")
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    refused(path, match)


def test_a_network_of_other_classes(tmp_path: Path) -> None:
    refused(small_onnx(tmp_path / "model.onnx", classes=3), "gives no logits of 2 classes")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 99),
        ("config", []),
        ("config", None),
        ("cases", {}),
        ("cases", {"train": [1], "val": []}),
        ("cost", {"parameters": "many"}),
        ("folded_offsets", [1e9]),
        ("folded_offsets", ["a"]),
        ("folded_offsets", None),
        ("folded_offsets", [0.5, 0.5]),
        ("input", None),
        ("input", {"size": 10**6}),
        ("task", "tumor"),
        ("task", {"name": "tumor", "classes": ["tumor"], "labels": [[999]], "regions": {}}),
        ("frame", {"size": 10**9, "crop": 0}),
        ("frame", None),
        ("window", "wide"),
    ],
)
@pytest.mark.parametrize("suffix", [".onnx", ".safetensors"])
def test_metadata_of_wrong_types(tmp_path: Path, suffix: str, key: str, value: object) -> None:
    path = tmp_path / f"model{suffix}"
    content = {**CONTENT, key: value}
    if suffix == ".onnx":
        small_onnx(path, content)
    else:
        save_file({"weight": torch.ones(1)}, path, {KEY: json.dumps(content)})
    refused(path, None)


def test_a_safetensors_file_that_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(1)}, path, {KEY: json.dumps(CONTENT)})
    whole = path.read_bytes()
    refused(path, "its weights do not fit enet")
    path.write_bytes(whole[:-2])
    refused(path, "is not a safetensors file")
    path.write_bytes(b"\xff" * 64)
    refused(path, "is not a safetensors file")
    save_file({"weight": torch.ones(1)}, path)
    refused(path, "does not say what network it is")


def test_what_cannot_be_asked_of_an_export(tmp_path: Path) -> None:
    path = small_onnx(tmp_path / "model.onnx")
    refused(path, "--device meta: .* runs on the CPU", device="meta")
    refused(tmp_path / "model.pt2", r"give the \.onnx or \.safetensors file")
