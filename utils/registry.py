"""Registries: plain dicts from a name to "module:factory", imported on use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

from utils.errors import UserError


def normalise_name(name: str) -> str:
    """`ResNet-18`, `resnet_18` and `resnet18` are one name."""
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


def match_name(kind: str, name: str, names: Iterable[str]) -> str:
    """The entry of `names` that `name` means; UserError with all the names if there is none."""
    names = list(names)
    for candidate in names:
        if normalise_name(candidate) == normalise_name(name):
            return candidate
    raise UserError(f"there is no {kind} {name!r}: choose one of {', '.join(names)}")


def lookup(registry: Mapping[str, str], kind: str, name: str) -> Any:
    """The factory that `registry` holds under `name`, imported now."""
    module, _, factory = registry[match_name(kind, name, registry)].partition(":")
    return getattr(import_module(module), factory)
