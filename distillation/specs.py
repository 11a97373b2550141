"""Methods as one types them: `NAME[:FACTOR][,OPTION=VALUE...]`, as in `cwd:0.5,layers=e4+e5,temperature=2`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

from utils.errors import UserError
from utils.numbers import float_in, int_from

if TYPE_CHECKING:
    from distillation.method import Method

Option = bool | int | float | str | tuple[str, ...]


@dataclass(frozen=True)
class MethodSpec:
    """A method with its options; factor scales all of its weights.

    options: all of them, as (name, value); changed: the names of those that differ from the method's defaults.
    """

    name: str
    factor: float
    options: tuple[tuple[str, Option], ...]
    changed: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The shortest text that means this spec."""
        name = self.name if self.factor == 1 else f"{self.name}:{format_option(self.factor)}"
        return ",".join([name, *(_assignment(key, value) for key, value in self.options if key in self.changed)])

    def definition(self) -> str:
        """Every option with its value: differs between two versions of a method's defaults."""
        return ",".join(
            [f"{self.name}:{format_option(self.factor)}", *(_assignment(*option) for option in self.options)]
        )

    @property
    def label(self) -> str:
        """The method's name as a part of other names: of a class `package.module:Class` only the class."""
        return self.name.rpartition(":")[2]


class OptionType(NamedTuple):
    """read raises argparse.ArgumentTypeError for a text that is no value of the option."""

    default: Option
    read: Callable[[str], Option]


def split_spec(text: str) -> tuple[str, dict[str, str]]:
    """(`NAME[:FACTOR]`, {option: value}) of a text; UserError unless every option reads NAME=VALUE."""
    head, *assignments = text.split(",")
    options = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not (key.strip() and equals and value):
            raise UserError(f"{text}: options follow the name as OPTION=VALUE, as in kd,temperature=2")
        options[key.strip()] = value
    return head.strip(), options


def read_factor(text: str, factor: str) -> float:
    """The weight after the colon in the method spec `text`; UserError unless it is a positive number."""
    try:
        value = float(factor)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"{text}: the weight after the colon must be a positive number, as in at:3.0")
    return value


def option_types(method: type[Method]) -> dict[str, OptionType]:
    """A method's options: its annotated attributes that have a default, class variables aside."""
    from distillation.method import Method

    of_every_method = get_type_hints(Method)
    options = {}
    for name, hint in get_type_hints(method, include_extras=True).items():
        read = get_args(hint)[1] if get_origin(hint) is Annotated else READERS.get(hint)
        if read is not None and hasattr(method, name) and name not in of_every_method:
            options[name] = OptionType(getattr(method, name), read)
    return options


def read_options(method: str, texts: Mapping[str, str], types: Mapping[str, OptionType]) -> dict[str, Option]:
    """The given options in their types; UserError for an unknown one or a wrong value."""
    values = {}
    for key, text in texts.items():
        if key not in types:
            choices = ", ".join(_assignment(name, option.default) for name, option in types.items())
            raise UserError(f"{method} has no option {key}; it has {choices or 'none'}")
        try:
            values[key] = types[key].read(text)
        except argparse.ArgumentTypeError as error:
            raise UserError(f"{method},{key}={text}: {error}") from None
    return values


def format_option(value: Any) -> str:
    """An option's value as one types it, in its shortest form."""
    return "+".join(value) if isinstance(value, tuple | list) else str(value).removesuffix(".0")


def _assignment(key: str, value: Option) -> str:
    return f"{key}={format_option(value)}"


def _read_bool(text: str) -> bool:
    if (value := {"true": True, "1": True, "false": False, "0": False}.get(text.lower())) is None:
        raise argparse.ArgumentTypeError(f"must be true or false, not {text}")
    return value


READERS: dict[Any, Callable[[str], Option]] = {
    bool: _read_bool,
    int: int_from(0),
    float: float_in(0),
    str: str,
    tuple[str, ...]: lambda text: tuple(text.split("+")),
}
"""How an option is read whose annotation gives no reader of its own, as `Positive` does."""
