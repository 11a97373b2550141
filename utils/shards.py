"""One command as several processes: each takes its share of the cases, and the last to end puts the results together.

A process that was started without `--shard` does what is left of all shares, so that putting the results together is
nothing but the same command once more, with nothing left to compute.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

from utils.files import write_text
from utils.lock import only_one
from utils.options import option

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """The share of one process: number 1 to count."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def label(self) -> str:
        """In names of files."""
        return f"shard-{self.number}-of-{self.count}"

    def of(self, items: Sequence[T]) -> list[T]:
        """Every count-th item; the shares of all shards are the items, each once."""
        return list(items[self.number - 1 :: self.count])


ONLY = Shard(1, 1)
"""In names of files, a process that does all."""


def read_shard(text: str) -> Shard:
    """An argparse type: K/N, K from 1 to N."""
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is no share such as 2/3, the second of three")
    return Shard(int(number), int(count))


@dataclass(frozen=True)
class ShardOptions:
    """shards: one command as several processes on one folder (docs/scaling.md)"""

    shard: Annotated[Shard, read_shard] | None = option(
        None,
        "do the K-th of N shares; whichever ends last puts the results together",
        exclusive="processes",
        metavar="K/N",
    )


class Place(NamedTuple):
    """Where shards tell one another how far they are: hidden files in `folder` whose names begin with `name`.

    what: is done there, for messages, as in "is predicting". key: of the command; a shard of another is none of ours.
    """

    folder: Path
    name: str
    what: str
    key: str

    def lock(self, shard: Shard | None = None) -> Path:
        return self.folder / f".{self.name}.{f'{shard.label}.' if shard else ''}lock"

    def part(self, shard: Shard) -> Path:
        """What a shard has done, as its command keeps it."""
        return self.folder / f".{self.name}.{shard.label}.json"

    def parts(self) -> list[Path]:
        return sorted(self.folder.glob(f".{self.name}.shard-*-of-*.json"))

    def ended(self, shard: Shard) -> Path:
        return self.folder / f".{self.name}.{shard.label}.ended"

    def missing(self, count: int) -> list[Shard]:
        """The shards that have not ended."""
        shards = [Shard(number, count) for number in range(1, count + 1)]
        return [shard for shard in shards if not self._has_ended(shard)]

    def _has_ended(self, shard: Shard) -> bool:
        try:
            return self.ended(shard).read_text(encoding="utf-8") == self.key
        except FileNotFoundError:
            return False

    def clear(self) -> None:
        """Forget how far the shards are; what they did must be elsewhere by now."""
        for path in (*self.parts(), *self.folder.glob(f".{self.name}.shard-*-of-*.ended")):
            path.unlink(missing_ok=True)


def take_part(place: Place, shard: Shard | None, work: Callable[[Shard | None], T]) -> T:
    """Do the work of a shard and, if all have ended then, that of the whole command; or at once that of the whole.

    The latter is to take in what the shards have done, and to leave nothing that depends on them. UserError if the
    same share is being worked on, or, for the whole, any.
    """
    if shard is None:
        with _alone(place):
            result = work(None)
            place.clear()
            return result
    with only_one(place.lock(shard), f"{place.what} as shard {shard}"):
        with only_one(place.lock(), place.what, wait=True):
            place.ended(shard).unlink(missing_ok=True)
        result = work(shard)
        write_text(place.ended(shard), place.key)
    with only_one(place.lock(), place.what, wait=True):
        if not place.ended(shard).exists():
            print(f"shard {shard} is done, and another has put the results together")
        elif missing := place.missing(shard.count):
            others = ", ".join(map(str, missing))
            print(f"shard {shard} is done; the results are put together when {others} are, or without --shard")
        else:
            result = work(None)
            place.clear()
    return result


@contextmanager
def _alone(place: Place) -> Iterator[None]:
    """Hold the locks of the command and of every shard that has begun."""
    with only_one(place.lock(), place.what), ExitStack() as held:
        for lock in place.folder.glob(f".{place.name}.shard-*-of-*.lock"):
            held.enter_context(only_one(lock, place.what))
        yield
