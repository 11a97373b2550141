"""Train, validation and test cases: seeded, by case, independent of the order of the names, kept once saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
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
    """Case names; each case is in exactly one list. unlabelled: training cases whose masks are not to be used.

    patients: case -> patient, where the case's name does not say it.
    """

    train: list[str]
    val: list[str]
    test: list[str]
    unlabelled: list[str] = field(default_factory=list)
    patients: dict[str, str] = field(default_factory=dict)

    def part_of(self, case: str) -> str:
        """`train`, `val` or `test`."""
        return "test" if case in self.test else "val" if case in self.val else "train"

    @property
    def names(self) -> list[str]:
        """Those whose masks are used."""
        return [*self.train, *self.val, *self.test]

    @property
    def all_names(self) -> list[str]:
        return [*self.names, *self.unlabelled]

    def without(self, cases: Collection[str]) -> Split:
        """The same of the other cases."""

        def kept(names: list[str]) -> list[str]:
            return [name for name in names if name not in cases]

        patients = {name: patient for name, patient in self.patients.items() if name not in cases}
        return Split(kept(self.train), kept(self.val), kept(self.test), kept(self.unlabelled), patients)

    def patient_of(self, case: str) -> str:
        return self.patients.get(case) or patient_of(case)

    def parts_of_patients(self) -> dict[str, str]:
        """Patient -> train, val or test; UserError for a patient in two of them."""
        cases: dict[str, str] = {}
        for case in self.all_names:
            first = cases.setdefault(self.patient_of(case), case)
            if (part := self.part_of(case)) != self.part_of(first):
                raise UserError(
                    f"patient {self.patient_of(case)} is in {self.part_of(first)} (case {first}) and in {part} (case "
                    f"{case}); keep a patient's cases in one part, or --resplit"
                )
        return {patient: self.part_of(case) for patient, case in cases.items()}


@dataclass(frozen=True)
class SplitOptions:
    """How cases are split; UserError if a value is out of bounds.

    mode "test": every case is a test case. labelled: the number of training cases that keep their masks; 0: all.
    """

    mode: str = "train"
    seed: int = 0
    test_fraction: float = 0.0
    val_fraction: float = 0.1
    labelled: int = 0

    def __post_init__(self) -> None:
        if self.mode not in ("train", "test"):
            raise UserError(f"--mode {self.mode}: must be train or test")
        for name in ("seed", "labelled"):
            if (value := getattr(self, name)) < 0:
                raise UserError(f"--{name} {value}: must not be negative")
        if min(self.test_fraction, self.val_fraction) < 0 or self.test_fraction + self.val_fraction >= 1:
            raise UserError(
                f"--test_fraction {self.test_fraction:g} and --val_fraction {self.val_fraction:g}: "
                "must be 0 or more, and together below 1"
            )

    def __str__(self) -> str:
        return " ".join(f"--{name} {value}" for name, value in asdict(self).items())


def split_cases(
    names: Iterable[str],
    seed: int,
    test_fraction: float,
    val_fraction: float,
    patients: Mapping[str, str] | None = None,
) -> Split:
    """A fraction above 0 gives at least one case if there are three or more; training always keeps one."""
    options = SplitOptions(seed=seed, test_fraction=test_fraction, val_fraction=val_fraction)
    return extend_split(Split([], [], []), names, options, patients)


def extend_split(
    split: Split,
    names: Iterable[str],
    options: SplitOptions,
    patients: Mapping[str, str] | None = None,
    parts: Mapping[str, str] | None = None,
) -> Split:
    """`split` with the names it lacks, assigned so that all cases together come nearest to the fractions.

    No case changes its part, but training cases may gain or lose their masks by `options.labelled`. The cases of one
    patient, such as ACDC's patient001_frame01 and patient001_frame12, stay together. patients: case -> patient, where
    the name does not say it; parts: case -> part, where the data set says which; UserError if the split, or another
    case of the patient, says otherwise.
    """
    names = set(names)
    given = {case: part for case, part in (parts or {}).items() if case in names and options.mode != "test"}
    known = {case: patient for case, patient in {**split.patients, **(patients or {})}.items() if patient}
    before = replace(split, patients=known)
    for case in sorted(given.keys() & set(split.all_names)):
        if split.part_of(case) != given[case]:
            raise UserError(
                f"case {case} is to be in {given[case]}, and was in {split.part_of(case)} before; add --resplit, or "
                "give another --outpath"
            )
    new = sorted(names - set(split.all_names))
    if options.mode == "test":
        given = dict.fromkeys(new, "test")
    placed = _with_cases(before, given)
    of_patients = placed.parts_of_patients()
    left = [name for name in new if name not in given]
    drawn = sorted({placed.patient_of(name) for name in left} - of_patients.keys())
    generator(options.seed, "splits").shuffle(drawn)
    counts, total = Counter(of_patients.values()), len(of_patients) + len(drawn)
    available = len(drawn) if counts["train"] else len(drawn) - 1
    tests = _still_needed(total, options.test_fraction, counts["test"], available)
    vals = _still_needed(total, options.val_fraction, counts["val"], available - tests)
    for index, patient in enumerate(drawn):
        of_patients[patient] = "test" if index < tests else "val" if index < tests + vals else "train"
    whole = _with_cases(placed, {name: of_patients[placed.patient_of(name)] for name in left})
    return _choose_labelled(whole, split.train, options)


def _with_cases(split: Split, parts: Mapping[str, str]) -> Split:
    """`split` and the cases in `parts` that it lacks, each list sorted."""
    new = sorted(parts.keys() - set(split.all_names))

    def extended(part: str, cases: list[str]) -> list[str]:
        return sorted(cases + [name for name in new if parts[name] == part])

    train, val, test = (extended(part, getattr(split, part)) for part in ("train", "val", "test"))
    return replace(split, train=train, val=val, test=test)


def _choose_labelled(split: Split, before: Collection[str], options: SplitOptions) -> Split:
    """`split` with the masks of `options.labelled` training cases, first of those that were used `before`.

    A larger number contains a smaller one, for each patient has a draw of its own.
    """
    cases = [*split.train, *split.unlabelled]
    if options.labelled > len(cases):
        raise UserError(
            f"--labelled {options.labelled}: there are {len(cases)} training cases; give a smaller number, or 0 for all"
        )

    def rank(case: str) -> tuple[bool, float, str]:
        return case not in before, generator(options.seed, "labelled", split.patient_of(case)).random(), case

    order = sorted(cases, key=rank)
    count = options.labelled or len(cases)
    while count < len(order) and split.patient_of(order[count]) == split.patient_of(order[count - 1]):
        count += 1  # A patient's frames stay together.
    return replace(split, train=sorted(order[:count]), unlabelled=sorted(order[count:]))


def save_split(path: Path, split: Split, options: SplitOptions) -> None:
    content = asdict(options) | asdict(split)
    write_json(path, content if split.patients else {name: content[name] for name in content if name != "patients"})


def load_split(path: Path, patients: Mapping[str, str] | None = None) -> Split:
    """Only three lists are required: train, val, test; UserError if the file is missing or is not a split.

    patients: case -> patient, where neither the file nor the name says it; UserError if one is in two parts.
    """
    split, _ = _load(path)
    split = replace(split, patients={**(patients or {}), **split.patients})
    _refuse_divided_patients(path, split)
    return split


def saved_split(path: Path, requested: dict[str, Any], resplit: bool) -> tuple[Split, SplitOptions]:
    """The split in `path`, and the options for cases that it lacks; an empty split without a file or with `resplit`.

    requested: fields of SplitOptions; None is the saved value, or else the default. UserError if one contradicts
    the saved value, unless `resplit` asks for a new split; another `labelled` needs none.
    """
    requested = {name: value for name, value in requested.items() if value is not None}
    split, saved = _load(path) if path.exists() else (Split([], [], []), {})
    if resplit:
        return Split([], [], []), SplitOptions(**saved | requested)
    _refuse_divided_patients(path, split)
    for name, value in requested.items():
        if name != "labelled" and saved.get(name, value) != value:
            raise UserError(
                f"{path}: was drawn with --{name} {saved[name]}, not {value}; "
                "give another --outpath, or --resplit for a new split"
            )
    return split, SplitOptions(**saved | requested)


def _load(path: Path) -> tuple[Split, dict[str, Any]]:
    """The split, and those of its options that the file holds."""
    content = read_json(path)
    try:
        train, val, test = (list(content[part]) for part in ("train", "val", "test"))
        split = Split(train, val, test, list(content.get("unlabelled", ())), dict(content.get("patients", {})))
        saved = {option.name: content[option.name] for option in fields(SplitOptions) if option.name in content}
        if split.unlabelled:
            saved.setdefault("labelled", len(split.train))
        SplitOptions(**saved)
        if not all(isinstance(name, str) for name in split.all_names):
            raise TypeError("a case's name is text")
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: is not a split; expected the lists train, val and test") from None
    if duplicates := [name for name, count in Counter(split.all_names).items() if count > 1]:
        raise UserError(f"{path}: lists case {duplicates[0]} twice; leave it in one list")
    return split, saved


def _refuse_divided_patients(path: Path, split: Split) -> None:
    try:
        split.parts_of_patients()
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


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
