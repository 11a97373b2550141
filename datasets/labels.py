"""Label maps: which source labels become which class, and which regions are evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utils.errors import UserError

HIGHEST_LABEL = 255  # Labels are uint8.


@dataclass(frozen=True)
class LabelMap:
    """classes: foreground names, of class 1 and up; labels: the SOURCE labels of each class;
    regions: what is evaluated, name -> classes.
    """

    name: str
    classes: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...]
    regions: dict[str, tuple[int, ...]]

    @property
    def num_classes(self) -> int:
        """Including the background."""
        return len(self.classes) + 1

    def encode(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Class indices of a mask of source labels, same shape."""
        table = np.zeros(256, np.uint8)
        for index, labels in enumerate(self.labels, start=1):
            table[list(labels)] = index
        # A third of the time of indexing with the mask.
        encoded = bytearray(mask.tobytes()).translate(table.tobytes())
        return np.frombuffer(encoded, np.uint8).reshape(mask.shape)

    def target(self, mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """True where a mask of source labels holds any foreground class."""
        table = np.zeros(256, np.bool_)
        table[[label for labels in self.labels for label in labels]] = True
        return table[mask]

    def has_target(self, mask: NDArray[np.uint8]) -> bool:
        """Whether a mask of source labels holds any foreground class; in a tenth of the time of `target`."""
        return any(bool((mask == label).any()) for labels in self.labels for label in labels)

    def to_dict(self) -> dict[str, Any]:
        """Only lists, dicts, strings and numbers, as JSON and checkpoints need them."""
        return {
            "name": self.name,
            "classes": list(self.classes),
            "labels": [list(labels) for labels in self.labels],
            "regions": {name: list(indices) for name, indices in self.regions.items()},
        }

    @staticmethod
    def from_dict(content: dict[str, Any]) -> LabelMap:
        """What `to_dict` gave; ValueError, TypeError or KeyError for anything else."""
        if not all(0 <= label <= HIGHEST_LABEL for labels in content["labels"] for label in labels):
            raise ValueError(f"a label is from 0 to {HIGHEST_LABEL}")
        return LabelMap(
            name=str(content["name"]),
            classes=tuple(map(str, content["classes"])),
            labels=tuple(tuple(labels) for labels in content["labels"]),
            regions={name: tuple(indices) for name, indices in content["regions"].items()},
        )


def one_class(name: str, *labels: int) -> LabelMap:
    """One foreground class that joins the given source labels."""
    return LabelMap(name, (name,), (labels,), {name: (1,)})


# The label map of slices without masks.
def plain_name(name: str) -> str:
    """A label's name as tasks and options spell it: "Liver tumour" is liver_tumour."""
    return name.strip().lower().replace(" ", "_")


NO_MASK = LabelMap("unlabelled", (), (), {})


def organ_and_lesions(lesions: Mapping[str, int], organ: int = 1) -> dict[str, LabelMap]:
    """The label maps for an organ and what lies in it, by source label; the organ includes its lesions."""
    labels = (organ, *lesions.values())
    regions = {"organ": tuple(range(1, len(labels) + 1))} | {name: (i,) for i, name in enumerate(lesions, start=2)}
    tasks = {"organ": one_class("organ", *labels)} | {name: one_class(name, label) for name, label in lesions.items()}
    every = LabelMap("all", ("organ", *lesions), tuple((label,) for label in labels), regions)
    return tasks | {"all": every}


def organ_and_tumor() -> dict[str, LabelMap]:
    """The label maps for data with 1 = organ and 2 = tumour."""
    return organ_and_lesions({"tumor": 2})


def named_regions(
    labels: Mapping[str, tuple[int, ...]], source: Path | str
) -> tuple[dict[str, LabelMap], dict[int, str]]:
    """The label maps for named groups of source labels, and every label with its meaning, the background included.

    A task for each group, and `all`: every label a class, the groups its regions. UserError, with the `source` of the
    names, if one of them is `all`.
    """
    if "all" in labels:
        raise UserError(f"{source}: names a label 'all', which is the name of the task of every label; choose another")
    numbers = sorted({number for group in labels.values() for number in group})
    names = {group[0]: name for name, group in labels.items() if len(group) == 1}
    classes = tuple(names.get(number, f"label_{number}") for number in numbers)
    regions = {name: tuple(numbers.index(number) + 1 for number in group) for name, group in labels.items()}
    tasks = {name: one_class(name, *group) for name, group in labels.items()}
    tasks["all"] = LabelMap("all", classes, tuple((number,) for number in numbers), regions)
    return tasks, {0: "background"} | dict(zip(numbers, classes, strict=True))


def resize_labels(mask: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """mask [H, W] at another shape, by nearest neighbour with aligned pixel centres."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp) for new, old in zip(shape, mask.shape, strict=True)
    )
    return mask[np.ix_(rows, columns)]
