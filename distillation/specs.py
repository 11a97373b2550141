"""Methods on the command line: `NAME[:FACTOR][,OPTION=VALUE...]`, as in `cwd:0.5,layers=e4+e5,temperature=2`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from math import inf
from typing import Any

from utils.errors import UserError

Option = bool | int | float | str | tuple[str, ...]

POSITIVE = ("temperature", "grid", "width", "pixel_memory", "region_memory", "granularity", "steps")
"""Options that divide or count what must be there; every other number may be 0."""
SHARES = ("masked",)
"""Options that lie below 1."""


@dataclass(frozen=True)
class Spec:
    """What one word of `--kd` says: factor scales all of the method's own weights."""

    name: str
    factor: float
    options: Mapping[str, str]


def parse_spec(text: str) -> Spec:
    """UserError unless the factor is a positive number and every option reads NAME=VALUE."""
    head, *rest = text.split(",")
    name, colon, factor = head.partition(":")
    options = {}
    for word in rest:
        key, equals, value = word.partition("=")
        if not (key.strip() and equals and value):
            raise UserError(f"{text}: options follow the name as OPTION=VALUE, as in kd,temperature=2")
        options[key.strip()] = value
    return Spec(name, _factor(text, factor) if colon else 1.0, options)


def _factor(spec: str, text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor < inf:
        raise UserError(f"{spec}: the weight after the colon must be a positive number, as in at:3.0")
    return factor


def own_options(factory: Callable[..., Any]) -> dict[str, Option]:
    """What a method lets be chosen, with its defaults: the keywords of its factory that are plain values."""
    return {
        name: parameter.default
        for name, parameter in signature(factory).parameters.items()
        if isinstance(parameter.default, bool | int | float | str)
        or (
            isinstance(parameter.default, tuple)
            and parameter.default
            and all(isinstance(each, str) for each in parameter.default)
        )
    }


def read_options(method: str, given: Mapping[str, Any], known: Mapping[str, Option]) -> dict[str, Option]:
    """The given options in the types of the known ones; UserError for an unknown one or a wrong value."""
    values = {}
    for key, value in given.items():
        if key not in known:
            choices = ", ".join(f"{name}={written(default)}" for name, default in known.items())
            raise UserError(f"{method} has no option {key}; it has {choices or 'none'}")
        values[key] = _read(f"{method},{key}={written(value)}", key, value, known[key])
    return values


def written(value: Any) -> str:
    """An option's value as one types it."""
    return "+".join(value) if isinstance(value, tuple | list) else str(value)


def _read(told: str, key: str, value: Any, default: Option) -> Option:
    if isinstance(default, tuple):
        return tuple(value.split("+")) if isinstance(value, str) else tuple(value)
    if isinstance(default, str):
        return str(value)
    if isinstance(default, bool):
        truth = {"true": True, "1": True, "false": False, "0": False}.get(str(value).lower())
        if truth is None:
            raise UserError(f"{told}: must be true or false")
        return truth
    try:
        number = type(default)(value)
    except (TypeError, ValueError):
        raise UserError(f"{told}: must be a {'whole ' * isinstance(default, int)}number") from None
    if not 0 <= number < inf or (key in POSITIVE and number == 0):
        raise UserError(f"{told}: must be {'a' if key in POSITIVE else '0 or a'} positive number")
    if key in SHARES and number >= 1:
        raise UserError(f"{told}: must be below 1")
    return number
