"""What a raw data set gives: its cases, their labels, and the tasks that can be set on them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from datasets.labels import LabelMap
from utils.errors import UserError
from utils.registry import match_name

SUFFIXES = (".nii.gz", ".nii")


class NoCases(UserError):
    """A folder is not laid out as expected, or is empty; what a mistake in a case raises is no such error."""


@dataclass(frozen=True)
class Case:
    """One image and, where there is one, its segmentation; `channel` picks one of a 4D image."""

    name: str
    image: Path
    label: Path | None
    channel: int | None = None


@dataclass(frozen=True)
class Layout:
    """labels: every source label allowed, 0 (background) included, with its meaning.

    window: (low, high) in HU; None, for MR: the 0.5 and 99.5 percentiles of each volume.
    """

    name: str
    find: Callable[[Path], list[Case]]
    tasks: dict[str, LabelMap]
    labels: dict[int, str]
    window: tuple[float, float] | None

    def label_map(self, name: str) -> LabelMap:
        """The task that `name` means; UserError with the names there are."""
        return self.tasks[match_name(f"{self.name} task", name, self.tasks)]


def plain_case(name: str) -> str:
    """A case's name without what other layouts write around it: nnU-Net's case_00007_0000 is KiTS's 00007."""
    return name.removeprefix("case_").removesuffix("_0000")


def match_case(name: str, known: Collection[str]) -> str:
    """The one of the `known` names that `name` means; `name` itself if it means none."""
    same = (each for each in known if plain_case(each) == plain_case(name))
    return name if name in known else next(same, name)


def nifti(folder: Path, stem: str) -> Path | None:
    """`folder/stem.nii.gz` or `folder/stem.nii`, whichever exists."""
    for suffix in SUFFIXES:
        path = folder / f"{stem}{suffix}"
        if path.is_file():
            return path
    return None


def stem(path: Path) -> str | None:
    """The file name without `.nii` or `.nii.gz`; None for other files and for hidden ones."""
    for suffix in SUFFIXES:
        if path.name.endswith(suffix) and not path.name.startswith("."):
            return path.name.removesuffix(suffix)
    return None


def pair(name: str, image: Path | None, label: Path | None, expected: str) -> Case:
    """A case; UserError if there is a segmentation but no image."""
    if image is None:
        raise UserError(f"{label}: its image is missing: expected {expected}")
    return Case(name, image, label)


def some(cases: list[Case], root: Path, expected: str) -> list[Case]:
    """`cases` as they are; NoCases that says what was looked for if there are none."""
    if not root.is_dir():
        raise NoCases(f"{root}: no such folder; give the folder that holds {expected}")
    if not cases:
        raise NoCases(f"{root}: holds no case; expected {expected}")
    return cases
