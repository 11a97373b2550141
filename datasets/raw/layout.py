"""What a raw data set provides: its cases, their labels, and the tasks defined on them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from datasets.labels import LabelMap
from datasets.raw.segments import SegmentCode, segments_of
from utils.errors import UserError
from utils.registry import match_name

if TYPE_CHECKING:
    from datasets.raw.cases import FoundCases


class NoCases(UserError):
    """The folder is missing, or holds no case in the expected layout; an invalid case raises a plain `UserError`."""


@dataclass(frozen=True)
class Case:
    """One image and its segmentation, if it has one; `channel` selects one channel of a 4D image.

    patient: whose image it is, where the name does not say (`datasets.splits.patient_of`); modality: what the data set
    calls the image's channel; part: train, val or test, where the data set says which. files: of a DICOM series, whose
    folder is `image`.
    """

    name: str
    image: Path
    label: Path | None
    channel: int | None = None
    patient: str | None = None
    modality: str | None = None
    part: str | None = None
    files: tuple[Path, ...] = ()

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files that hold the image."""
        return self.files or (self.image,)


@dataclass(frozen=True)
class Layout:
    """labels: every allowed source label with its meaning, 0 (background) included.

    tasks: what `--task` can name. window: (low, high) in HU, or None for MR, which uses the 0.5 and 99.5
    percentiles of each volume. channel: which one is read of images with several.
    """

    name: str
    find: Callable[[Path], FoundCases]
    tasks: dict[str, LabelMap]
    labels: dict[int, str]
    window: tuple[float, float] | None
    channel: int | None = None

    @property
    def hounsfield(self) -> bool:
        """Whether the images should be in HU."""
        return self.window is not None

    @property
    def segments(self) -> dict[int, SegmentCode]:
        """What DICOM calls each label."""
        return {label: code for task in self.tasks.values() for label, code in segments_of(self.name, task).items()}

    def label_map(self, task: str) -> LabelMap:
        """The label map of a task; UserError with the available tasks if there is none of that name."""
        return self.tasks[match_name(f"{self.name} task", task, self.tasks)]


def canonical_name(case: str) -> str:
    """A case's name without the affixes of other layouts: nnU-Net's case_00007_0000 is KiTS's 00007."""
    return case.removeprefix("case_").removesuffix("_0000")


def match_case(name: str, cases: Collection[str]) -> str:
    """The entry of `cases` that is the same case as `name`; `name` itself if there is none."""
    if name in cases:
        return name
    return next((case for case in cases if canonical_name(case) == canonical_name(name)), name)
