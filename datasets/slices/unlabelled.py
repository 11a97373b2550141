"""Slices to distil on without a mask: of cases that have none, and of training cases those that no list names."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.labels import NO_MASK
from datasets.raw.layout import plain_case
from datasets.slices.manifest import MANIFEST, Manifest
from datasets.slices.slice_folder import SliceFolder, case_of, slice_files
from datasets.splits import SPLITS, UNLABELLED_FOLDER, load_split, patient_of
from utils.errors import UserError


@dataclass(frozen=True)
class UnlabelledSlices:
    """slices: each an archive and a file's name in there; its mask, if it has one, is never read."""

    slices: tuple[tuple[SliceFolder, str], ...]

    def __len__(self) -> int:
        return len(self.slices)

    @property
    def names(self) -> list[str]:
        return [name for _, name in self.slices]

    def read(self, i: int, window: tuple[float, float] | None) -> tuple[NDArray[np.int16], tuple[float, float], str]:
        """ct int16 [H, W], its window in stored units, and its case; `window` in HU, in place of the data's own."""
        slices, name = self.slices[i]
        case, _ = case_of(name)
        return slices.read_ct(name), slices.window(case, window), case

    def __str__(self) -> str:
        cases = {(slices.folder, case_of(name)[0]) for slices, name in self.slices}
        folders = dict.fromkeys(str(slices.folder) for slices, _ in self.slices)
        return f"{len(self)} of {len(cases)} cases in {', '.join(folders)}"


def unlabelled_slices(
    folders: Iterable[Path], training: SliceFolder, listed: Collection[str], held_out: Collection[str]
) -> UnlabelledSlices:
    """The slices in `folders`, but those that `training` gives with their masks and those of held-out cases.

    folders: each a folder of slices, or one with such folders train/ and unlabelled/. listed: the slice files of
    `training` that are trained on with masks; held_out: its validation and test cases, see `held_out_cases`.
    Both are looked for, by name, in slices of the same data set only. Of any archive, its own validation and test
    cases are left out too. UserError if a folder has nothing to give; what was held out is told on stderr.
    """
    listed = set(listed)
    found: dict[Path, list[tuple[SliceFolder, str]]] = {}
    for folder in folders:
        places = [place.resolve() for place in _places(folder)]
        for place in places:
            if place not in found:
                found[place] = _usable(place, training, listed, held_out)
        if not any(found[place] for place in places):
            raise UserError(
                f"{folder}: has no slice but those to train on with masks and those to validate or test on; "
                "cut it with --slices all, or give another folder as --unlabelled"
            )
    return UnlabelledSlices(tuple(pair for pairs in found.values() for pair in pairs))


def held_out_cases(training: SliceFolder, test_folder: Path | None = None) -> set[str]:
    """The validation and test cases of the data that `training` is a part of, as far as its folders tell.

    By cases.json, by splits.json, and by the slices in the folder test/ beside it and in `test_folder`.
    """
    folder = training.folder.resolve()
    root = folder.parent if folder.name == "train" else folder
    tests = [root / "test"] + ([test_folder, test_folder / "test"] if test_folder is not None else [])
    held_out = {case_of(name)[0] for test in tests if test.resolve() != folder for name in slice_files(test)}
    if (root / SPLITS).is_file():
        split = load_split(root / SPLITS)
        held_out |= {*split.val, *split.test}
    return held_out | _evaluated(training)


def _evaluated(slices: SliceFolder) -> set[str]:
    """The cases that the archive itself keeps for validation and testing."""
    return {name for name, case in slices.record.cases.items() if case.split != "train"} if slices.record else set()


def _places(folder: Path) -> list[Path]:
    """The folders of slices that are meant by one."""
    below = [folder / "train", folder / UNLABELLED_FOLDER]
    places = [place for place in [folder, *below] if (place / MANIFEST).is_file() or slice_files(place)]
    if not places:
        raise UserError(
            f"{folder}: holds no slices; cut some with: python scripts/SliceMaker.py --inpath ANY_CT "
            f"--outpath {folder} --unlabelled"
        )
    return [folder] if folder in places else places


def _usable(
    place: Path, training: SliceFolder, listed: Collection[str], held_out: Collection[str]
) -> list[tuple[SliceFolder, str]]:
    record = Manifest.load(place)
    slices = SliceFolder(place, record.dataset if record else training.dataset, NO_MASK, record)
    if (slices.dataset_window is None) != (training.dataset_window is None):
        kinds = ("CT", "MR") if slices.dataset_window else ("MR", "CT")
        raise UserError(f"{place}: holds {kinds[0]}, but {training.folder} {kinds[1]}; give slices of the same kind")
    related = slices.dataset == training.dataset
    own, others = _evaluated(slices), {_patient(case) for case in held_out if related}
    left_out = [case for case in slices.cases if case in own or _patient(case) in others]
    if left_out:
        print(f"note: {place}: left out, as cases to validate or test on: {', '.join(left_out)}", file=sys.stderr)
    names = [name for case, names in slices.cases.items() if case not in left_out for name in names]
    return [(slices, name) for name in names if not (related and name in listed)]


def _patient(case: str) -> str:
    return patient_of(plain_case(case))
