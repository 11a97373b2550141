"""Slices to distil on without a mask: those of cases without segmentation, and unlisted ones of training cases."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.labels import NO_MASK
from datasets.raw.layout import canonical_name
from datasets.slices.manifest import MANIFEST, Manifest
from datasets.slices.slice_folder import SliceFolder, case_of, slice_files
from datasets.splits import SPLITS, UNLABELLED_FOLDER, load_split, patient_of
from utils.errors import UserError
from utils.progress import print_note


@dataclass(frozen=True)
class UnlabelledSlices:
    """files: each a folder and the name of a slice file in it, whose mask, if there is one, is never read."""

    files: tuple[tuple[SliceFolder, str], ...]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def names(self) -> list[str]:
        return [name for _, name in self.files]

    def read(self, i: int, window: tuple[float, float] | None) -> tuple[NDArray[np.int16], tuple[float, float], str]:
        """ct int16 [H, W], its window in stored units, and its case; `window`: HU, replaces the data set's."""
        slices, name = self.files[i]
        case, _ = case_of(name)
        return slices.read_ct(name), slices.window(case, window), case

    def __str__(self) -> str:
        cases = {(slices.folder, case_of(name)[0]) for slices, name in self.files}
        folders = dict.fromkeys(str(slices.folder) for slices, _ in self.files)
        return f"{len(self)} of {len(cases)} cases in {', '.join(folders)}"


def unlabelled_slices(
    folders: Iterable[Path], training: SliceFolder, listed: Collection[str], held_out: Collection[str]
) -> UnlabelledSlices:
    """The slices in `folders` without those that are trained on with their masks and those of held-out cases.

    folders: each a folder of slices, or one that holds such folders named train/ and unlabelled/.
    listed: the slice files of `training` that are trained on with masks; held_out: its validation and test cases
    (`held_out_cases`). Both are excluded by name, only from slices of the same data set. A folder's own validation
    and test cases are excluded as well. UserError if nothing is left of a folder; excluded cases are reported on
    stderr.
    """
    listed = set(listed)
    found: dict[Path, list[tuple[SliceFolder, str]]] = {}
    for folder in folders:
        places = [place.resolve() for place in _places(folder)]
        for place in places:
            if place not in found:
                found[place] = _usable_files(place, training, listed, held_out)
        if not any(found[place] for place in places):
            raise UserError(
                f"{folder}: all its slices are trained on with masks or are for validation and testing; "
                "cut it with --slices all, or give another folder as --unlabelled"
            )
    return UnlabelledSlices(tuple(file for files in found.values() for file in files))


def held_out_cases(training: SliceFolder, test_folder: Path | None = None) -> set[str]:
    """The validation and test cases of the data set that `training` is a part of, and their patients.

    Read from its cases.json, from splits.json, and from the slice files in the folder test/ next to it and in
    `test_folder`.
    """
    folder = training.folder.resolve()
    root = folder.parent if folder.name == "train" else folder
    tests = [root / "test"] + ([test_folder, test_folder / "test"] if test_folder is not None else [])
    held_out = {case_of(name)[0] for test in tests if test.resolve() != folder for name in slice_files(test)}
    if (root / SPLITS).is_file():
        split = load_split(root / SPLITS)
        held_out |= {*split.val, *split.test}
        held_out |= {split.patients[case] for case in (*split.val, *split.test) if case in split.patients}
    return held_out | _evaluation_cases(training)


def _evaluation_cases(slices: SliceFolder) -> set[str]:
    """The folder's own validation and test cases, or those of the split that it was opened with."""
    if slices.split is not None:
        return {*slices.split.val, *slices.split.test}
    manifest = slices.manifest
    return {name for name, case in manifest.cases.items() if case.split != "train"} if manifest else set()


def _places(folder: Path) -> list[Path]:
    """The folders with slices: `folder` itself, or those below it."""
    candidates = [folder, folder / "train", folder / UNLABELLED_FOLDER]
    places = [place for place in candidates if (place / MANIFEST).is_file() or slice_files(place)]
    if not places:
        raise UserError(
            f"{folder}: holds no slices; cut them with: python scripts/SliceMaker.py --inpath ANY_CT "
            f"--outpath {folder} --unlabelled"
        )
    return [folder] if folder in places else places


def _usable_files(
    place: Path, training: SliceFolder, listed: Collection[str], held_out: Collection[str]
) -> list[tuple[SliceFolder, str]]:
    manifest = Manifest.load(place)
    slices = SliceFolder(place, manifest.dataset if manifest else training.dataset, NO_MASK, manifest)
    if (slices.dataset_window is None) != (training.dataset_window is None):
        kinds = ("CT", "MR") if slices.dataset_window else ("MR", "CT")
        raise UserError(f"{place}: holds {kinds[0]}, but {training.folder} {kinds[1]}; give slices of the same kind")
    same_dataset = slices.dataset == training.dataset
    own = _evaluation_cases(slices)
    others = {patient for case in held_out for patient in _patients(training, case)} if same_dataset else set()
    excluded = [case for case in slices.cases if case in own or not others.isdisjoint(_patients(slices, case))]
    if excluded:
        print_note(f"{place}: left out, as cases to validate or test on: {', '.join(excluded)}")
    names = [name for case, names in slices.cases.items() if case not in excluded for name in names]
    return [(slices, name) for name in names if not (same_dataset and name in listed)]


def _patients(slices: SliceFolder, case: str) -> set[str]:
    """The patient by the case's name in any layout, and by the manifest."""
    return {patient_of(canonical_name(case)), slices.patients.get(case, patient_of(case))}
