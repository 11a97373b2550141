"""Train, validation and test cases: seeded, by case, and independent of the order of the names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from utils.errors import UserError
from utils.files import read_json, write_json
from utils.seeding import generator


@dataclass(frozen=True)
class Split:
    """Case names; each case is in exactly one list."""

    train: list[str]
    val: list[str]
    test: list[str]

    def of(self, case: str) -> str:
        """`train`, `val` or `test`."""
        return "test" if case in self.test else "val" if case in self.val else "train"


def split_cases(names: Iterable[str], seed: int, test_fraction: float, val_fraction: float) -> Split:
    """A fraction above 0 gives at least one case where there are three or more; training never goes empty.

    The frames of one ACDC patient (patient001_frame01, patient001_frame12) stay together.
    """
    if min(test_fraction, val_fraction) < 0 or test_fraction + val_fraction >= 1:
        raise UserError(
            f"--test_fraction {test_fraction:g} and --val_fraction {val_fraction:g}: "
            "must be 0 or more, and together below 1"
        )
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault(name.partition("_frame")[0], []).append(name)
    order = sorted(groups)
    generator(seed, "splits").shuffle(order)
    tests = _count(len(order), test_fraction, len(order) - 1)
    vals = _count(len(order), val_fraction, len(order) - 1 - tests)

    def cases(patients: list[str]) -> list[str]:
        return sorted(name for patient in patients for name in groups[patient])

    return Split(cases(order[tests + vals :]), cases(order[tests : tests + vals]), cases(order[:tests]))


def save_split(path: Path, split: Split) -> None:
    write_json(path, asdict(split))


def load_split(path: Path) -> Split:
    """UserError if the file is missing or is not a split."""
    content = read_json(path)
    try:
        return Split(list(content["train"]), list(content["val"]), list(content["test"]))
    except (KeyError, TypeError):
        raise UserError(f"{path}: is not a split; expected the lists train, val and test") from None


def _count(total: int, fraction: float, most: int) -> int:
    least = 1 if fraction > 0 and total >= 3 else 0
    return max(0, min(max(round(total * fraction), least), most))
