"""Divisions of the cases: the slices' own, or K folds, each of which tests on cases that no other tests on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from datasets.slices.slice_folder import SliceFolder
from datasets.splits import Split, SplitOptions, load_split, patient_of, save_split, split_cases
from utils.errors import UserError
from utils.seeding import generator

SEED = 0
"""Of the draw, so that a benchmark's seeds are trainings on the same folds."""


def draw_folds(
    cases: Iterable[str], folds: int, val_fraction: float, patients: Mapping[str, str] | None = None
) -> list[Split]:
    """Every case tests in one fold; of the others a share validates. The cases of one patient stay together.

    patients: case -> patient, where the name does not say it.

    UserError if a fold would lack a case to train, validate or test on.
    """
    cases = sorted(cases)
    of = {case: (patients or {}).get(case) or patient_of(case) for case in cases}
    drawn = sorted(set(of.values()))
    if len(drawn) < max(folds, 4):
        raise UserError(f"--folds {folds}: {len(drawn)} patients are too few; give fewer folds, or more cases")
    generator(SEED, "folds").shuffle(drawn)
    splits = []
    for fold in range(folds):
        tested = set(drawn[fold::folds])
        rest = split_cases((case for case in cases if of[case] not in tested), SEED, 0.0, val_fraction, patients)
        if not (rest.train and rest.val):
            raise UserError(
                f"--folds {folds}: fold {fold} has no case left to train or to validate on; give more folds, more "
                "cases or a larger --val_fraction"
            )
        splits.append(replace(rest, test=[case for case in cases if of[case] in tested]))
    return splits


def write_folds(slices: SliceFolder, folds: int, val_fraction: float, outpath: Path) -> list[Path]:
    """A splits.json for each fold, in `outpath`; UserError if earlier ones there divide the cases otherwise."""
    if lacking := [case for case in slices.cases if not slices.complete(case)]:
        raise UserError(
            f"{slices.folder}: lacks slices of {len(lacking)} of its {len(slices.cases)} cases ({lacking[0]}, ...), "
            "and each is tested on in some fold; cut them with --slices all"
        )
    paths = []
    for number, split in enumerate(draw_folds(slices.cases, folds, val_fraction, slices.patients)):
        path = outpath / f"{number}_of_{folds}.json"
        if path.exists() and load_split(path) != split:
            raise UserError(f"{path}: divides other cases, or otherwise; give another --outpath")
        save_split(path, split, SplitOptions(seed=SEED, val_fraction=val_fraction))
        paths.append(path)
    return paths
