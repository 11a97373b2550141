"""Cases with their reference segmentation, one at a time, from slices on disk or from raw files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.raw.layout import Layout, match_case
from datasets.raw.notes import summarise_notes
from datasets.raw.options import AS_IT_SHOULD_BE, ReadingOptions
from datasets.raw.volume import read_volume
from datasets.slices.slice_folder import SliceFolder
from datasets.window import volume_window
from utils.errors import UserError, join_errors
from utils.progress import print_note


@dataclass
class LabelledCase:
    """image: int16 [N, H, W]; label: uint8, the source's labels; window: in the image's stored units.

    spacing: (z, y, x) in mm; None where it is not available or slices are missing.
    """

    name: str
    image: NDArray[np.int16]
    label: NDArray[np.uint8]
    spacing: tuple[float, float, float] | None
    window: tuple[float, float]


def cases_in_slices(
    slices: SliceFolder, names: Iterable[str], window: tuple[float, float] | None
) -> Iterator[LabelledCase]:
    """Cases of a folder of slices, by their names in any layout; those with every slice have their spacing."""
    names = list(dict.fromkeys(match_case(name, slices.cases) for name in names))
    if missing := sorted(set(names) - set(slices.cases)):
        raise UserError(f"{slices.folder}: no slices of {', '.join(missing)}; it has {', '.join(slices.cases)}")
    for name in names:
        image, label = slices.read_case(name)
        spacing = slices.spacing(name) if slices.complete(name) else None
        yield LabelledCase(name, image, label, spacing, slices.window(name, window))


def raw_cases(
    layout: Layout,
    root: Path,
    names: Sequence[str] | None,
    window: tuple[float, float] | None,
    reading: ReadingOptions = AS_IT_SHOULD_BE,
) -> Iterator[LabelledCase]:
    """Cases read from raw files, by their names in any layout; `names` None: every case with a segmentation.

    What was left out is noted on stderr, and after the last case what is unusual in them. One UserError names the cases
    that cannot be read, the first few with their faults; after the first of them the others are only looked at.
    """
    found = layout.find(root)
    for note in found.notes:
        print_note(f"{root}: {note}")
    cases = {case.name: case for case in found if case.label is not None}
    chosen = sorted(cases) if names is None else list(dict.fromkeys(match_case(name, cases) for name in names))
    if missing := sorted(set(chosen) - set(cases)):
        raise UserError(f"{root}: no labelled case {', '.join(missing)}; it holds {', '.join(sorted(cases))}")
    if not cases:
        raise UserError(f"{root}: no case has a segmentation, so there is nothing to evaluate; use predict.py")
    errors, notes = [], {}
    for name in chosen:
        try:
            volume = read_volume(cases[name], layout.labels, hounsfield=layout.hounsfield, reading=reading)
        except UserError as error:
            errors.append(str(error))
            continue
        assert volume.label is not None
        notes[name] = volume.notes
        if not errors:
            yield LabelledCase(name, volume.image, volume.label, volume.spacing, volume_window(volume, window))
    for note in summarise_notes(notes):
        print_note(note)
    if errors:
        count = f"{root}: {len(errors)} of {len(chosen)} cases cannot be used: " if len(errors) > 1 else ""
        raise UserError(count + join_errors(errors))
