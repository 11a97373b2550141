"""What is segmented: which source labels become which class, and which regions are evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelMap:
    """classes: foreground names, class index 1 and up; labels: each class's SOURCE labels;
    regions: what is evaluated, name -> class indices.
    """

    name: str
    classes: tuple[str, ...]
    labels: tuple[tuple[int, ...], ...]
    regions: dict[str, tuple[int, ...]]

    @property
    def num_classes(self) -> int:
        """The background counts."""
        return len(self.classes) + 1

    def encode(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Source labels to class indices, same shape."""
        table = np.zeros(256, np.uint8)
        for index, labels in enumerate(self.labels, start=1):
            table[list(labels)] = index
        return table[mask]

    def target(self, mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """True where `mask` holds any of the task's classes."""
        table = np.zeros(256, np.bool_)
        table[[label for labels in self.labels for label in labels]] = True
        return table[mask]

    def to_dict(self) -> dict[str, Any]:
        """Lists, dicts and strings only: fit for JSON and for checkpoints."""
        return {
            "name": self.name,
            "classes": list(self.classes),
            "labels": [list(labels) for labels in self.labels],
            "regions": {name: list(indices) for name, indices in self.regions.items()},
        }

    @staticmethod
    def from_dict(content: dict[str, Any]) -> LabelMap:
        return LabelMap(
            name=content["name"],
            classes=tuple(content["classes"]),
            labels=tuple(tuple(labels) for labels in content["labels"]),
            regions={name: tuple(indices) for name, indices in content["regions"].items()},
        )


def single(name: str, *labels: int) -> LabelMap:
    """One foreground class made of the given source labels."""
    return LabelMap(name, (name,), (labels,), {name: (1,)})


NO_MASK = LabelMap("unlabelled", (), (), {})
"""What slices without a mask are cut for."""


def organ_and_tumor() -> dict[str, LabelMap]:
    """The tasks of data with 1 = organ and 2 = its tumour: the tumour is part of the organ."""
    both = LabelMap("all", ("organ", "tumor"), ((1,), (2,)), {"organ": (1, 2), "tumor": (2,)})
    return {"organ": single("organ", 1, 2), "tumor": single("tumor", 2), "all": both}
