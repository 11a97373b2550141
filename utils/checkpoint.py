"""Checkpoint files: dicts of tensors, strings, numbers, lists and dicts, read without running code."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar
from torch import Tensor

from utils.errors import UserError
from utils.files import atomic_write

FORMAT = 3
"""Of what is written. Networks of formats 1, which had no number, and 2 are read, their runs can't be resumed."""
WEIGHTS = ("weights", "state_dict", "model_state_dict", "model", "network_weights", "net")
"""Where checkpoints of this project, and of others, keep a network's weights."""
WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""
Allowed = Sequence[Callable[..., Any] | tuple[Callable[..., Any], str]]
"""What a file may name besides tensors, each with the name it has there if that is another."""
NUMPY_NUMBERS: Allowed = (
    (scalar, "numpy.core.multiarray.scalar"),
    (scalar, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in "?bhilqBHILQefd"),
    codecs.encode,
)
"""NumPy's scalars, as one number of an array is saved: they hold bytes, and a type that is looked up here."""
ADVICE = "give a checkpoint that train.py or train_kd.py wrote"


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write `content` so that `torch.load(weights_only=True)` reads it back; UserError if that is not possible."""
    # PyTorch writes a path's own name into the file, and a temporary one differs from launch to launch.
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save({"format": FORMAT, **content}, file)
        except RuntimeError as error:
            # PyTorch's writer puts a complaint of its own over what the system said.
            raise _system_error(error) from None


def _system_error(error: RuntimeError) -> OSError | RuntimeError:
    """What the system said first, of the errors that an error was raised during; the error itself if none was its."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__context__
    return cause or error


def read_tensors(path: Path, allowed: Allowed = ()) -> Any:
    """What PyTorch saved in a file, on the CPU and without running code.

    allowed: what it may hold besides. UserError if it is damaged, or holds more than that, tensors and plain types.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); allow it, or give another file") from None
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        if names := _objects_in(path, allowed):
            raise UserError(
                f"{path}: is not a checkpoint that can be read: it holds Python objects ({shorten(names)}), which are "
                f"never loaded, for they can run code; save its weights alone, or {ADVICE}"
            ) from None
        raise UserError(
            f"{path}: is not a checkpoint that can be read ({path.stat().st_size} bytes, damaged, cut short, or "
            f"not of PyTorch); {ADVICE}"
        ) from None


def _objects_in(path: Path, allowed: Allowed) -> list[str]:
    """The names of what a file of PyTorch wants to import, without importing it; empty for any other file."""
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:
        return []


def find_weights(content: Any) -> dict[str, Tensor] | None:
    """The state dict in what was read, itself or under one of `WEIGHTS`, without wrappers' prefixes; None for none."""
    candidates = [content.get(key) for key in WEIGHTS] if isinstance(content, dict) else []
    for weights in (*candidates, content):
        if isinstance(weights, dict) and all(isinstance(value, Tensor) for value in weights.values()):
            return _unwrapped(weights)
    return None


def _unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in WRAPPERS:
        if weights and all(name.startswith(prefix) for name in weights):
            return _unwrapped({name.removeprefix(prefix): value for name, value in weights.items()})
    return weights


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, its network's `find_weights` under "weights".

    UserError if it is missing, damaged, without weights, or of a later version.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; train.py writes best.ckpt and last.ckpt")
    content = read_tensors(path)
    weights = find_weights(content)
    if weights is None:
        keys = f"its keys are {shorten(content)}" if isinstance(content, dict) else f"it is a {type(content).__name__}"
        raise UserError(f"{path}: holds no network weights ({keys}); {ADVICE}")
    if content.get("format", 1) not in (1, 2, FORMAT):
        raise UserError(f"{path}: has the unknown checkpoint format {content['format']!r}; update the code to read it")
    return {**content, "weights": weights}


def shorten(names: Iterable[Any], most: int = 3) -> str:
    """The first few of many names."""
    names = [" ".join(str(name).split())[:80] for name in names]
    return ", ".join([*names[:most], *(["..."] if len(names) > most else [])]) or "none"
