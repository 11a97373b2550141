"""The slices to train on and the cases to validate on."""

from __future__ import annotations

from collections.abc import Sequence

from datasets.slices.slice_folder import SliceFolder
from datasets.splits import split_cases
from utils.errors import UserError


def cases_for_training(slices: SliceFolder, val_fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """`train_val_split`, with a notice if it had to be drawn; UserError if no validation case has the target."""
    names, val_cases = train_val_split(slices, val_fraction, seed)
    if not slices.val_cases:
        print(
            f"{slices.folder}: no validation cases were set apart when the slices were cut; {len(val_cases)} of "
            f"{len(slices.cases)} cases validate now, on the slices that are there",
            flush=True,
        )
    _check_target(slices, val_cases)
    return names, val_cases


def train_val_split(slices: SliceFolder, val_fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """Slice files to train on and cases to validate on, never of the same case; reads no slice file.

    As the slices were cut; if they were cut without validation cases, drawn by `val_fraction` and `seed`.
    """
    if slices.val_cases:
        return slices.train, slices.val_cases
    if slices.split is not None:
        raise UserError(f"{slices.folder}: the split that divides it has no case to validate on; add one to its val")
    split = split_cases(list(slices.cases), seed, test_fraction=0, val_fraction=val_fraction, patients=slices.patients)
    if not split.val:
        raise UserError(
            f"{slices.folder}: {len(slices.cases)} case(s) leave none to validate on; "
            "give more cases or a larger --val_fraction"
        )
    held_out = {name for case in split.val for name in slices.cases[case]}
    return [name for name in slices.train if name not in held_out], list(split.val)


def _check_target(slices: SliceFolder, cases: Sequence[str]) -> None:
    # Without a target in the validation cases all checkpoints would score the same.
    names = (name for case in cases for name in slices.cases[case])
    if not any(slices.label_map.target(slices.read(name)[1]).any() for name in names):
        raise UserError(
            f"{slices.folder}: no validation case has the target of task {slices.label_map.name}; "
            "cut the slices with another --seed or a larger --val_fraction"
        )
