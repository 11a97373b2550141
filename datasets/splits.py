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
PARTS = ("train", "test", UNLABELLED_FOLDER)
"""The folders of slices below one that is split."""


@dataclass(frozen=True)
class Split:
    """Case names; each case is in exactly one list."""

    train: list[str]
    val: list[str]
    test: list[str]

    def of(self, case: str) -> str:
        """`train`, `val` or `test`."""
        return "test" if case in self.test else "val" if case in self.val else "train"

    @property
    def names(self) -> list[str]:
        return [*self.train, *self.val, *self.test]


@dataclass(frozen=True)
class SplitOptions:
    """How cases are dealt out. mode: "train", or "test", where every case is a test case."""

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
    """A fraction above 0 gives at least one case where there are three or more; training never goes empty."""
    options = SplitOptions(seed=seed, test_fraction=test_fraction, val_fraction=val_fraction)
    return extend_split(Split([], [], []), names, options)


def extend_split(split: Split, names: Iterable[str], options: SplitOptions) -> Split:
    """`split` with the names it lacks, dealt out so that the whole comes nearest to the fractions.

    No case changes its part. The frames of one ACDC patient (patient001_frame01, patient001_frame12) stay together.
    """
    new = sorted(set(names) - set(split.names))
    if options.mode == "test":
        return Split(split.train, split.val, sorted(split.test + new))
    parts = {patient_of(name): split.of(name) for name in split.names}
    patients = sorted({patient_of(name) for name in new} - parts.keys())
    generator(options.seed, "splits").shuffle(patients)
    have, total = Counter(parts.values()), len(parts) + len(patients)
    spare = len(patients) if have["train"] else len(patients) - 1
    tests = _missing(total, options.test_fraction, have["test"], spare)
    vals = _missing(total, options.val_fraction, have["val"], spare - tests)
    for index, patient in enumerate(patients):
        parts[patient] = "test" if index < tests else "val" if index < tests + vals else "train"

    def grown(part: str, kept: list[str]) -> list[str]:
        return sorted(kept + [name for name in new if parts[patient_of(name)] == part])

    return Split(grown("train", split.train), grown("val", split.val), grown("test", split.test))


def save_split(path: Path, split: Split, options: SplitOptions) -> None:
    write_json(path, asdict(options) | asdict(split))


def load_split(path: Path) -> Split:
    """From the three lists, whatever else the file holds; UserError if it is missing or is not a split."""
    return _load(path)[0]


def kept_split(path: Path, given: dict[str, Any], resplit: bool) -> tuple[Split, SplitOptions]:
    """The split in `path`, empty if there is none or with `resplit`, and the options for cases it lacks.

    given: fields of SplitOptions; what is None is as saved, or else the default. UserError if they contradict
    what is saved, unless a new split is drawn.
    """
    wanted = {name: value for name, value in given.items() if value is not None}
    split, saved = _load(path) if path.exists() else (Split([], [], []), {})
    if resplit:
        return Split([], [], []), SplitOptions(**saved | wanted)
    for name, value in wanted.items():
        if saved.get(name, value) != value:
            raise UserError(
                f"{path}: was drawn with --{name} {saved[name]}, not {value}; "
                "give another --outpath, or --resplit to draw anew"
            )
    return split, SplitOptions(**saved | wanted)


def _load(path: Path) -> tuple[Split, dict[str, Any]]:
    """The split, and the options it was drawn with as far as the file tells."""
    content = read_json(path)
    try:
        split = Split(list(content["train"]), list(content["val"]), list(content["test"]))
        saved = {field.name: content[field.name] for field in fields(SplitOptions) if field.name in content}
        SplitOptions(**saved)
    except (KeyError, TypeError):
        raise UserError(f"{path}: is not a split; expected the lists train, val and test") from None
    if twice := [name for name, count in Counter(split.names).items() if count > 1]:
        raise UserError(f"{path}: lists case {twice[0]} twice; leave it in one list")
    return split, saved


def split_root(folder: Path) -> Path:
    """The folder with the splits.json that `folder` is a part of, as data/kits of data/kits/train; else `folder`."""
    place = folder if folder.name else folder.absolute()
    return place.parent if place.name in PARTS and (place.parent / SPLITS).is_file() else folder


def patient_of(case: str) -> str:
    """patient001_frame01 and patient001_frame12 of ACDC are one patient's."""
    return case.partition("_frame")[0]


def _missing(total: int, fraction: float, have: int, most: int) -> int:
    """How many of `total` a part still lacks, at most `most`."""
    least = 1 if fraction > 0 and total >= 3 else 0
    return max(0, min(max(round(total * fraction), least) - have, most))
