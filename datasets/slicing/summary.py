"""What a run of SliceMaker did, as it is printed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from datasets.raw.notes import summarise_notes
from datasets.splits import SPLITS, Split, SplitOptions
from utils.errors import UserError


@dataclass
class UnlabelledSummary:
    """The cases without segmentation; the numbers as in `SliceMakerSummary`.

    set_aside: how many of them have one that is not used; notes, and files that were read: by the case's name.
    """

    folder: Path
    cases: int
    cut: int = 0
    slices: int = 0
    new: int = 0
    notes: dict[str, list[str]] = field(default_factory=dict)
    set_aside: int = 0
    files: dict[str, list[Path]] = field(default_factory=dict)

    def __str__(self) -> str:
        unused = f" ({self.set_aside} of them by --labelled)" if self.set_aside else ""
        lines = [
            f"cases without segmentation: {self.cases}{unused}, {self.cut} cut now, "
            f"{self.cases - self.cut} done before",
            f"slices without masks: {self.slices} on disk, {self.new} of them new, in {self.folder}",
        ]
        return "\n".join(lines + [f"note: {note}" for note in summarise_notes(self.notes)])


@dataclass
class SliceMakerSummary:
    """cut: cases read by this run; slices: on disk, for all tasks; new: written by this run; listed: to train on.

    left_out: what of the input is in no case; unusable: the errors of the cases that could not be cut;
    origin: where the split comes from; without_target, skipped: names of cases, the latter of those without
    segmentation if they were not to be cut; notes, and files that were read by this run: by the case's name.
    """

    split: Split = field(default_factory=lambda: Split([], [], []))
    origin: str = ""
    skipped: list[str] = field(default_factory=list)
    cut: int = 0
    slices: int = 0
    new: int = 0
    listed: int = 0
    without_target: list[str] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, list[Path]] = field(default_factory=dict)
    unlabelled: UnlabelledSummary | None = None
    left_out: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    inpath: Path = Path()

    def __str__(self) -> str:
        parts = [self._labelled_text()] if self.split.names else []
        parts += [str(self.unlabelled)] if self.unlabelled else []
        return "\n".join([*parts, *self.left_out])

    @property
    def all_files(self) -> dict[str, list[Path]]:
        """Those of the cases without segmentation too."""
        return self.files | (self.unlabelled.files if self.unlabelled else {})

    def refuse_unusable(self) -> None:
        """UserError with the errors of all cases that could not be cut, if there are any."""
        if len(self.unusable) == 1:
            raise UserError(self.unusable[0])
        if self.unusable:
            raise UserError(f"{self.inpath}: {len(self.unusable)} cases cannot be used: {'; '.join(self.unusable)}")

    def _labelled_text(self) -> str:
        train, val, test = (len(names) for names in (self.split.train, self.split.val, self.split.test))
        total = train + val + test
        lines = [
            f"cases: {total} (train {train}, val {val}, test {test}), {self.cut} cut now, "
            f"{total - self.cut} done before",
            f"split: {self.origin}",
            *self._labelled_cases(),
            f"slices: {self.slices} on disk, {self.new} of them new, {self.listed} on the list to train on",
        ]
        if self.skipped:
            lines.append(f"skipped, no segmentation (--unlabelled cuts them): {', '.join(self.skipped)}")
        if self.without_target:
            lines.append(f"without the target, negatives only: {', '.join(self.without_target)}")
        return "\n".join(lines + [f"note: {note}" for note in summarise_notes(self.notes)])

    def _labelled_cases(self) -> list[str]:
        total = len(self.split.train) + len(self.split.unlabelled)
        return [f"masks: of {len(self.split.train)} of {total} training cases"] if self.split.unlabelled else []


def split_origin(saved: Split, split: Split, options: SplitOptions) -> str:
    """How `split` was drawn, or, if some of its cases were `saved` before, which cases were added."""
    if not saved.all_names:
        return f"drawn by {options}; later runs keep it"
    added = set(split.all_names) - set(saved.all_names)
    parts = Counter(map(split.part_of, added))
    counts = ", ".join(f"{part} {parts[part]}" for part in ("train", "val", "test"))
    return f"kept from {SPLITS}; {len(added)} new cases" + (f" ({counts})" if added else "")
