"""Exported files as they are read: nothing in them runs code or leads to another file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.runtime.metadata import ADVICE, KEY, decode
from utils.checkpoint import shorten
from utils.errors import UserError

ONNX, SAFETENSORS, TORCH = ".onnx", ".safetensors", ".pt2"


def read_onnx(path: Path) -> tuple[bytes, dict[str, Any]]:
    """The model and what it says about itself; UserError if it is damaged, or keeps tensors in other files.

    A tensor elsewhere is named by a path, which may lead out of the model's folder.
    """
    import onnx
    from google.protobuf.message import DecodeError

    model = read_bytes(path)
    try:
        content = onnx.ModelProto.FromString(model)
        elsewhere = any(
            message.data_location == onnx.TensorProto.EXTERNAL
            for message in messages(content)
            if isinstance(message, onnx.TensorProto)
        )
    except (DecodeError, RecursionError):
        raise UserError(f"{path}: is not an ONNX file ({len(model)} bytes, damaged or cut short); {ADVICE}") from None
    if elsewhere:
        raise UserError(f"{path}: keeps tensors in other files, which are never opened; {ADVICE}")
    texts = {entry.key: entry.value for entry in content.metadata_props}
    return model, decode(texts.get(KEY), path)


def read_safetensors(path: Path) -> dict[str, Any]:
    """What a checkpoint of the network holds, its state dict under "weights"; UserError if the file is damaged."""
    from safetensors import SafetensorError, safe_open

    read_bytes(path, 1)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError, OverflowError) as error:
        raise UserError(f"{path}: is not a safetensors file ({shorten([error])}); {ADVICE}") from None
    return {**decode(text, path), "weights": weights}


def read_bytes(path: Path, count: int = -1) -> bytes:
    """The first bytes of a file, by default all; UserError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; scripts/export.py writes one") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); allow it, or give another file") from None


def messages(message: Any) -> Iterator[Any]:
    """A protobuf message and all those inside of it, at any depth."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if field.is_repeated else (value,):
                yield from messages(each)
