"""Distillation methods, one file per family, and the tasks that the training loop runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from math import inf
from typing import TYPE_CHECKING, Any

from utils.errors import UserError
from utils.registry import lookup, match_name, plain

if TYPE_CHECKING:
    from distillation.method import Method
    from networks.contract import Channels

METHODS: dict[str, str] = {
    "hlfd": "distillation.hierarchical:hlfd",
    "ifd": "distillation.hierarchical:ifd",
    "hifd": "distillation.hierarchical:hifd",
    "deep": "distillation.same_level:deep",
    "skd": "distillation.same_level:skd",
    "at": "distillation.same_level:at",
    "hlfd_published": "distillation.hlfd_published:HLFDPublished",
}

PUBLISHED_NAMES: dict[str, str] = {
    "recursive_feedback_ours": "hlfd",
    "cat_feedback_ours": "ifd",
    "indv_feedback": "hifd",
    "deep_kd": "deep",
    "wo_feedback": "skd",
    "attn_kd": "at",
}


def method_name(name: str) -> str:
    """The name in `METHODS` that a forgiving or a published name means; UserError with those that exist."""
    for published, ours in PUBLISHED_NAMES.items():
        if plain(name) == plain(published):
            return ours
    return match_name("distillation method", name, METHODS)


def build_method(specs: Sequence[str], student: Channels, teacher: Channels, **options: Any) -> Method:
    """The method that specs such as `["hlfd", "at:3.0"]` mean: a name, and after a colon its weight.

    options: alpha, beta, temperature; each method gets those that it knows. UserError for an unknown name,
    one given twice, a weight that is no positive number, or an option out of its range.
    """
    from distillation.method import Combined

    _check(options)
    parts: list[tuple[str, float, Method]] = []
    for spec in specs:
        given, _, factor = spec.partition(":")
        name = method_name(given)
        if any(name == other for other, _, _ in parts):
            raise UserError(f"distillation method {name} is given twice: give it once, with its weight")
        factory = lookup(METHODS, "distillation method", name)
        known = {key: value for key, value in options.items() if key in signature(factory).parameters}
        parts.append((name, _weight(spec, factor), factory(student, teacher, **known)))
    if not parts:
        raise UserError(f"no distillation method is given: choose one of {', '.join(METHODS)}")
    _, weight, method = parts[0]
    return method if len(parts) == 1 and weight == 1 else Combined(parts)


def _check(options: Mapping[str, Any]) -> None:
    for name in ("alpha", "beta"):
        if not 0 <= options.get(name, 0) < inf:
            raise UserError(f"--{name} must be 0 or a positive number, not {options[name]}")
    if not 0 < options.get("temperature", 1) < inf:
        raise UserError(f"--temperature must be a positive number, not {options['temperature']}")


def _weight(spec: str, text: str) -> float:
    try:
        weight = float(text) if ":" in spec else 1.0
    except ValueError:
        weight = 0.0
    if not 0 < weight < inf:
        raise UserError(f"{spec}: the weight after the colon must be a positive number, as in at:3.0")
    return weight
