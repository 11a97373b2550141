"""Command lines as frozen dataclasses: a field is a flag, with its help, its bounds and its part in a run's identity.

The annotation says what may be given: `PositiveInt`, `Path | None`, `Literal["a", "b"]`, `tuple[Path, ...]`, `bool`.
Nothing heavy is imported, for `--help` should answer at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, field, fields
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from utils.errors import UserError

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """Accepts dashes and underscores in flags; a usage error is one line, as every other error.

    aliases: earlier spelling of a flag -> today's, both without dashes; they work, and `--help` does not show them.
    """

    def __init__(self, description: str | None, aliases: Mapping[str, str] | None = None) -> None:
        super().__init__(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )
        self.aliases = aliases or {}

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        words = [self._spelling(word) for word in (sys.argv[1:] if args is None else args)]
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help lists the options)")

    def read(self, *groups: type[Any], words: Sequence[str] | None = None, **defaults: Any) -> tuple[Any, ...]:
        """Parse the command line into one object of each options class; `defaults` replace those of the fields."""
        for group in groups:
            add_options(self, group, **defaults)
        args = self.parse_args(words)
        return tuple(read_options(args, group) for group in groups)

    def _spelling(self, word: str) -> str:
        if not word.startswith("--"):
            return word
        flag, equals, value = word[2:].partition("=")
        flag = flag.replace("-", "_")
        return f"--{self.aliases.get(flag, flag)}{equals}{value}"


def option(default: Any, help: str, *, identity: bool = True, exclusive: str = "", **flag: Any) -> Any:
    """A field of an options class; MISSING as its default makes the flag required.

    identity: whether another value makes another run, which can't resume this one. exclusive: of the fields with the
    same word here at most one may be given. flag: more for argparse's add_argument, such as metavar.
    """
    return field(default=default, metadata={"help": help, "identity": identity, "exclusive": exclusive, "flag": flag})


def add_options(parser: argparse.ArgumentParser, group: type[Any], only: Collection[str] = (), **defaults: Any) -> None:
    """Add a flag for every field of an options class that has a help, or for those named in `only`."""
    title, _, description = (group.__doc__ or "").partition("\n")[0].partition(": ")
    section = parser.add_argument_group(title, description or None)
    exclusive: dict[str, argparse._MutuallyExclusiveGroup] = {}
    hints = get_type_hints(group, include_extras=True)
    for each in fields(group):
        if "help" not in each.metadata or (only and each.name not in only):
            continue
        default = defaults.get(each.name, each.default)
        target: Any = section
        if kind := each.metadata["exclusive"]:
            if kind not in exclusive:
                exclusive[kind] = section.add_mutually_exclusive_group()
            target = exclusive[kind]
        settings = _argument_settings(hints[each.name]) | each.metadata["flag"]
        if default is MISSING:
            settings["required"] = True
        else:
            settings["default"] = default
        target.add_argument(f"--{each.name}", help=each.metadata["help"] + _default_text(default), **settings)


def _default_text(default: Any) -> str:
    if default is None or default is MISSING or default is False or default == ():
        return ""
    return f" (default: {' '.join(map(str, default)) if isinstance(default, tuple) else default})"


def read_options(args: argparse.Namespace, group: type[T]) -> T:
    """The object of an options class that parsed arguments make."""
    names = [each.name for each in fields(group) if "help" in each.metadata]  # type: ignore[arg-type]
    given = {name: getattr(args, name) for name in names if hasattr(args, name)}
    return group(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})


def given_options(args: argparse.Namespace, names: Collection[str]) -> dict[str, Any]:
    """Those of the options that were given, where `add_options` made None their default."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def identity(options: Any) -> dict[str, Any]:
    """The fields that decide a run's result, as text, numbers and lists."""
    return {
        each.name: _plain(getattr(options, each.name))
        for each in fields(options)
        if each.metadata.get("identity", True)
    }


def command_line() -> str:
    """The command that was typed, for the files that it leaves."""
    return " ".join(["python", *sys.argv])


def _argument_settings(hint: Any) -> dict[str, Any]:
    """What an annotation means to argparse's add_argument."""
    if NoneType in get_args(hint):
        (hint,) = (each for each in get_args(hint) if each is not NoneType)
    if hint is bool:
        return {"action": "store_true"}
    if get_origin(hint) is Literal:
        return {"choices": list(get_args(hint))}
    if get_origin(hint) is tuple:
        item, *rest = get_args(hint)
        return {"nargs": "+" if rest == [...] else 1 + len(rest)} | _argument_settings(item)
    if get_origin(hint) is Annotated:
        return {"type": get_args(hint)[1]}
    return {"type": hint}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
