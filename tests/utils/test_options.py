"""Options classes as command lines."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Literal

import pytest

from utils.errors import UserError
from utils.numbers import NonNegative, NonNegativeInt, Positive, PositiveInt, Share
from utils.options import Parser, identity, option


@dataclass(frozen=True)
class Options:
    """example: of every kind."""

    where: Path = option(MISSING, "a folder", identity=False)
    count: PositiveInt = option(3, "how many")
    rate: Positive | None = option(None, "how fast")
    share: Share = option(0.5, "which part")
    kind: Literal["one", "two"] = option("one", "which")
    window: tuple[NonNegative, NonNegative] | None = option(None, "two numbers", metavar=("LO", "HI"))
    names: tuple[str, ...] = option((), "any number of words")
    start: NonNegativeInt = option(0, "a number that may be 0")
    fast: bool = option(False, "a switch", identity=False)
    hour: int = option(1, "one of two", exclusive="time")
    minute: int | None = option(None, "the other", exclusive="time")
    decided: str = "by the program"


def read(*words: str) -> Options:
    (options,) = Parser("A test.", {"place": "where", "old_names": "names"}).read(Options, words=words)
    return options


def test_fields_become_flags_and_flags_fields() -> None:
    first = ["--where", "a", "--count", "4", "--rate", "0.5", "--kind", "two", "--window", "1", "2"]
    words = [*first, "--names", "x", "y", "--fast", "--minute", "7"]
    assert read(*words) == Options(Path("a"), 4, 0.5, 0.5, "two", (1.0, 2.0), ("x", "y"), 0, True, 1, 7)
    assert read("--where", "a") == Options(Path("a"))


def test_flags_may_have_dashes_and_their_earlier_spelling() -> None:
    assert read("--place=a", "--old-names", "x") == read("--where", "a", "--names", "x")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "the following arguments are required: --where"),
        ("--where a --count 0", "argument --count: must be an integer of at least 1, not 0"),
        ("--where a --count 1.5", "argument --count: must be an integer of at least 1, not 1.5"),
        ("--where a --rate 0", "argument --rate: must be a number above 0, not 0"),
        ("--where a --rate nan", "argument --rate: must be a number above 0, not nan"),
        ("--where a --share 1", "argument --share: must be a number at least 0 and below 1, not 1"),
        ("--where a --kind three", "argument --kind: invalid choice: 'three'"),
        ("--where a --window 1", "argument --window: expected 2 arguments"),
        ("--where a --hour 2 --minute 3", "argument --minute: not allowed with argument --hour"),
        ("--where a --decided x", "unrecognized arguments: --decided x"),
        ("--where a --cou 1", "unrecognized arguments: --cou 1"),
    ],
)
def test_what_cannot_be_read_is_one_line(words: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        read(*words.split())
    assert message in str(error.value) and "\n" not in str(error.value)


def test_help_shows_defaults_and_no_earlier_spelling(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read("--help")
    shown = capsys.readouterr().out
    assert "(default: 3)" in shown and "example:\n  of every kind." in shown and "(default: 0)" in shown
    assert "place" not in shown and "decided" not in shown


def test_identity_is_what_decides_the_result_in_plain_types() -> None:
    values = identity(read("--where", "a", "--names", "x", "--window", "1", "2"))
    assert values["names"] == ["x"] and values["window"] == [1.0, 2.0] and values["decided"] == "by the program"
    assert "where" not in values and "fast" not in values
