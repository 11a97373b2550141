"""Cases with their reference segmentation, one at a time, from slices on disk or from raw files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from datasets.raw.cases import LABEL_NOT_FETCHED, FoundCases
from datasets.raw.find_cases import find_labelled
from datasets.raw.layout import Layout, match_case
from datasets.raw.notes import summarise_notes
from datasets.raw.options import AS_IT_SHOULD_BE, ReadingOptions
from datasets.raw.tree import NOT_FETCHED
from datasets.raw.volume import read_volume
from datasets.slices.slice_folder import SliceFolder, case_of
from datasets.window import volume_window
from utils.errors import UserError, join_errors
from utils.progress import print_note
from utils.stored_as import StoredAs

Choose: TypeAlias = Callable[[Mapping[str, Sequence[Path]]], Sequence[str]]
"""Which of the names of cases to go on with, of all that were asked for and are there, each with its files."""


@dataclass
class LabelledCase:
    """image: int16 [N, H, W]; label: uint8, the source's labels; window: in the image's stored units.

    Slices grow to superior, as far as it is known how they lie. spacing: (z, y, x) in mm; None where it is not
    available or slices are missing. numbers: the source's own of each slice; None for 0 and up. files: those that were
    read; notes: what is unusual in them. stored_as: None where slices do not say it.
    """

    name: str
    image: NDArray[np.int16]
    label: NDArray[np.uint8]
    spacing: tuple[float, float, float] | None
    window: tuple[float, float]
    numbers: tuple[int, ...] | None = None
    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stored_as: StoredAs | None = None


def cases_in_slices(
    slices: SliceFolder, names: Iterable[str], window: tuple[float, float] | None, choose: Choose = list
) -> Iterator[LabelledCase]:
    """Cases of a folder of slices, by their names in any layout; those with every slice have their spacing."""
    names = list(dict.fromkeys(match_case(name, slices.cases) for name in names))
    if missing := sorted(set(names) - set(slices.cases)):
        raise UserError(f"{slices.folder}: no slices of {', '.join(missing)}; it has {', '.join(slices.cases)}")
    files = {name: [slices.folder / each for each in slices.cases[name]] for name in names}
    for name in choose(files):
        upward = slices.upward(name)
        image, label = slices.read_slices(upward)
        spacing = slices.spacing(name) if slices.complete(name) else None
        numbers = tuple(case_of(each)[1] for each in upward)
        notes = slices.manifest.cases[name].notes if slices.manifest else []
        shown, stored_as = slices.window(name, window), slices.stored_as(name)
        yield LabelledCase(name, image, label, spacing, shown, numbers, files[name], notes, stored_as)


def raw_cases(
    layout: Layout,
    root: Path,
    names: Sequence[str] | None,
    window: tuple[float, float] | None,
    reading: ReadingOptions = AS_IT_SHOULD_BE,
    choose: Choose = list,
    found: FoundCases | None = None,
) -> Iterator[LabelledCase]:
    """Cases read from raw files, by their names in any layout; `names` None: every case with a segmentation.

    found: what `find_labelled` finds in `root`, where that is known. What was left out is noted on stderr, and after
    the last case what is unusual in them. One UserError names the cases that cannot be read, the first few with their
    faults; after the first of them the others are only looked at.
    """
    found = find_labelled(layout, root) if found is None else found
    for note in found.notes:
        print_note(f"{root}: {note}")
    cases = {case.name: case for case in found if case.label is not None}
    chosen = sorted(cases) if names is None else list(dict.fromkeys(match_case(name, cases) for name in names))
    _refuse_without_label(root, found, sorted(set(chosen) - set(cases)))
    errors: list[str] = []
    notes: dict[str, list[str]] = {}
    files = {name: [path for path in (*cases[name].sources, cases[name].label) if path] for name in chosen}
    chosen = list(choose(files))
    for name in chosen:
        try:
            volume = read_volume(
                cases[name], layout.labels, hounsfield=layout.hounsfield, reading=reading, segments=layout.segments
            )
        except UserError as error:
            errors.append(str(error))
            continue
        assert volume.label is not None
        notes[name] = volume.notes
        if not errors:
            shown = volume_window(volume, window)
            numbers = tuple(volume.slices.tolist())
            yield LabelledCase(
                name, volume.image, volume.label, volume.spacing, shown, numbers, files[name], volume.notes,
                volume.stored_as,
            )  # fmt: skip
    for note in summarise_notes(notes):
        print_note(note)
    refuse_unusable(root, errors, len(chosen))


def refuse_unusable(place: Path, errors: Sequence[str], cases: int) -> None:
    """One UserError for those of so many cases that cannot be used, if there are any."""
    if errors:
        count = f"{place}: {len(errors)} of {cases} cases cannot be used: " if len(errors) > 1 else ""
        raise UserError(count + join_errors(errors))


def _refuse_without_label(root: Path, found: FoundCases, asked: Sequence[str]) -> None:
    """UserError if cases were asked for that have no segmentation here, or if no case has one.

    asked: the names of the former.
    """
    labelled = [case.name for case in found if case.label is not None]
    absent = {case.name: LABEL_NOT_FETCHED for case in found.label_not_fetched}
    absent |= dict.fromkeys(found.image_not_fetched, NOT_FETCHED)
    if links := sorted({match_case(name, absent) for name in asked} & absent.keys()):
        raise UserError(f"{root}: case {', '.join(links)}: {absent[links[0]]}")
    if asked:
        raise UserError(f"{root}: no labelled case {', '.join(asked)}; it holds {', '.join(labelled) or 'none'}")
    if not labelled and absent:
        raise UserError(f"{root}: no case can be evaluated: of {len(absent)}, {next(iter(absent.values()))}")
    if not labelled:
        raise UserError(f"{root}: no case has a segmentation, so there is nothing to evaluate; use predict.py")
