"""Train, validation and test cases: seeded, by case, independent of the order of the names, kept once saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import read_json, write_json
from utils.seeding import generator

SPLITS = "splits.json"
UNLABELLED_FOLDER = "unlabelled"
# The folders of slices that can lie next to a splits.json.
SLICE_FOLDERS = ("train", "test", UNLABELLED_FOLDER)


@dataclass(frozen=True)
class Split:
    """Case names; each case is in exactly one list."""

    train: list[str]
    val: list[str]
    test: list[str]

    def part_of(self, case: str) -> str:
        """`train`, `val` or `test`."""
        return "test" if case in self.test else "val" if case in self.val else "train"

    @property
    def names(self) -> list[str]:
        return [*self.train, *self.val, *self.test]


@dataclass(frozen=True)
class SplitOptions:
    """How cases are split; UserError if a value is out of bounds. mode "test": every case is a test case."""

    mode: str = "train"
    seed: int = 0
    test_fraction: float = 0.0
    val_fraction: float = 0.1

    def __post_init__(self) -> None:
        if self.mode not in ("train", "test"):
            raise UserError(f"--mode {self.mode}: must be train or test")
        if self.seed < 0:
            raise UserError(f"--seed {self.seed}: must not be negative")
        if min(self.test_fraction, self.val_fraction) < 0 or self.test_fraction + self.val_fraction >= 1:
            raise UserError(
                f"--test_fraction {self.test_fraction:g} and --val_fraction {self.val_fraction:g}: "
                "must be 0 or more, and together below 1"
            )

    def __str__(self) -> str:
        return " ".join(f"--{name} {value}" for name, value in asdict(self).items())


def split_cases(names: Iterable[str], seed: int, test_fraction: float, val_fraction: float) -> Split:
    """A fraction above 0 gives at least one case if there are three or more; training always keeps one."""
    options = SplitOptions(seed=seed, test_fraction=test_fraction, val_fraction=val_fraction)
    return extend_split(Split([], [], []), names, options)


def extend_split(split: Split, names: Iterable[str], options: SplitOptions) -> Split:
    """`split` with the names it lacks, assigned so that all cases together come nearest to the fractions.

    No case changes its part. The frames of one ACDC patient (patient001_frame01, patient001_frame12) stay together.
    """
    new = sorted(set(names) - set(split.names))
    if options.mode == "test":
        return Split(split.train, split.val, sorted(split.test + new))
    parts = {patient_of(name): split.part_of(name) for name in split.names}
    patients = sorted({patient_of(name) for name in new} - parts.keys())
    generator(options.seed, "splits").shuffle(patients)
    counts, total = Counter(parts.values()), len(parts) + len(patients)
    available = len(patients) if counts["train"] else len(patients) - 1
    tests = _still_needed(total, options.test_fraction, counts["test"], available)
    vals = _still_needed(total, options.val_fraction, counts["val"], available - tests)
    for index, patient in enumerate(patients):
        parts[patient] = "test" if index < tests else "val" if index < tests + vals else "train"

    def extended(part: str, cases: list[str]) -> list[str]:
        return sorted(cases + [name for name in new if parts[patient_of(name)] == part])

    return Split(extended("train", split.train), extended("val", split.val), extended("test", split.test))


def save_split(path: Path, split: Split, options: SplitOptions) -> None:
    write_json(path, asdict(options) | asdict(split))


def load_split(path: Path) -> Split:
    """Only the three lists are required; UserError if the file is missing or is not a split."""
    return _load(path)[0]


def saved_split(path: Path, requested: dict[str, Any], resplit: bool) -> tuple[Split, SplitOptions]:
    """The split in `path`, and the options for cases that it lacks; an empty split without a file or with `resplit`.

    requested: fields of SplitOptions; None is the saved value, or else the default. UserError if one contradicts
    the saved value, unless `resplit` asks for a new split.
    """
    requested = {name: value for name, value in requested.items() if value is not None}
    split, saved = _load(path) if path.exists() else (Split([], [], []), {})
    if resplit:
        return Split([], [], []), SplitOptions(**saved | requested)
    for name, value in requested.items():
        if saved.get(name, value) != value:
            raise UserError(
                f"{path}: was drawn with --{name} {saved[name]}, not {value}; "
                "give another --outpath, or --resplit for a new split"
            )
    return split, SplitOptions(**saved | requested)


def _load(path: Path) -> tuple[Split, dict[str, Any]]:
    """The split, and those of its options that the file holds."""
    content = read_json(path)
    try:
        split = Split(list(content["train"]), list(content["val"]), list(content["test"]))
        saved = {field.name: content[field.name] for field in fields(SplitOptions) if field.name in content}
        SplitOptions(**saved)
    except (KeyError, TypeError):
        raise UserError(f"{path}: is not a split; expected the lists train, val and test") from None
    if duplicates := [name for name, count in Counter(split.names).items() if count > 1]:
        raise UserError(f"{path}: lists case {duplicates[0]} twice; leave it in one list")
    return split, saved


def split_root(folder: Path) -> Path:
    """The folder whose splits.json applies to `folder`: data/kits for data/kits/train; else `folder` itself."""
    place = folder if folder.name else folder.absolute()
    return place.parent if place.name in SLICE_FOLDERS and (place.parent / SPLITS).is_file() else folder


def patient_of(case: str) -> str:
    """ACDC's patient001_frame01 and patient001_frame12 are of one patient."""
    return case.partition("_frame")[0]


def _still_needed(total: int, fraction: float, count: int, available: int) -> int:
    """How many of the `available` patients a part needs to reach its fraction of `total`, if it has `count`."""
    minimum = 1 if fraction > 0 and total >= 3 else 0
    return max(0, min(max(round(total * fraction), minimum) - count, available))
