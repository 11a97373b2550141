"""What a raw data set provides: its cases, their labels, and the tasks defined on them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from datasets.labels import LabelMap
from utils.errors import UserError
from utils.registry import match_name

SUFFIXES = (".nii.gz", ".nii")


class NoCases(UserError):
    """The folder is missing, or holds no case in the expected layout; an invalid case raises a plain `UserError`."""


@dataclass(frozen=True)
class Case:
    """One image and its segmentation, if it has one; `channel` selects one channel of a 4D image.

    modality: the name that the data set gives the image's channel, if it names them.
    """

    name: str
    image: Path
    label: Path | None
    channel: int | None = None
    modality: str | None = None


@dataclass(frozen=True)
class Layout:
    """labels: every allowed source label with its meaning, 0 (background) included.

    tasks: what `--task` can name. window: (low, high) in HU, or None for MR, which uses the 0.5 and 99.5
    percentiles of each volume.
    """

    name: str
    find: Callable[[Path], list[Case]]
    tasks: dict[str, LabelMap]
    labels: dict[int, str]
    window: tuple[float, float] | None

    @property
    def hounsfield(self) -> bool:
        """Whether the images should be in HU."""
        return self.window is not None

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


def find_nifti(folder: Path, stem: str) -> Path | None:
    """`folder/stem.nii.gz` or `folder/stem.nii`, whichever exists."""
    for suffix in SUFFIXES:
        path = folder / f"{stem}{suffix}"
        if path.is_file():
            return path
    return None


def nifti_stem(path: Path) -> str | None:
    """The file name without `.nii` or `.nii.gz`; None for other files and for hidden ones."""
    for suffix in SUFFIXES:
        if path.name.endswith(suffix) and not path.name.startswith("."):
            return path.name.removesuffix(suffix)
    return None


def make_case(name: str, image: Path | None, label: Path | None, expected: str) -> Case:
    """UserError that names the `expected` image if there is only a segmentation."""
    if image is None:
        raise UserError(f"{label}: its image is missing: expected {expected}")
    return Case(name, image, label)


def require_cases(cases: list[Case], root: Path, expected: str) -> list[Case]:
    """`cases`, unchanged; NoCases that describes the `expected` files if the list is empty."""
    if not root.is_dir():
        raise NoCases(f"{root}: no such folder; give the folder that holds {expected}")
    if not cases:
        raise NoCases(f"{root}: holds no case; expected {expected}")
    return cases
