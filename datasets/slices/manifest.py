"""cases.json: what a folder of slices holds and how it was made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets.labels import LabelMap
from utils.errors import UserError
from utils.files import read_json, write_json

MANIFEST = "cases.json"


@dataclass(frozen=True)
class CutOptions:
    """slices: "target" (with a share of `negatives`) or "all": what training cases have on disk."""

    slices: str = "target"
    negatives: float = 0.1


@dataclass
class TaskSlices:
    """One task's slices of a case, by the source's numbers: with a target, listed for training, on disk."""

    target: list[int]
    listed: list[int] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    options: CutOptions = field(default_factory=CutOptions)


@dataclass
class ManifestCase:
    """shape: [Z, Y, X]; spacing: (z, y, x) in mm; percentiles: 0.5 and 99.5, in stored units.

    source: path relative to the raw folder, size in bytes and mtime in ns of the image and of the label;
    split: train, val or test.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    scale: float
    shift: float
    percentiles: tuple[float, float]
    source: dict[str, Any]
    split: str
    tasks: dict[str, TaskSlices]
    notes: list[str]

    @property
    def written(self) -> set[int]:
        """The slices on disk, for whichever task."""
        return {index for slices in self.tasks.values() for index in slices.written}

    def to_dict(self) -> dict[str, Any]:
        content = asdict(self) | {"slices": self.shape[0]}
        for slices in content["tasks"].values():
            slices |= {name: to_ranges(slices[name]) for name in ("target", "listed", "written")}
        return content

    @staticmethod
    def from_dict(content: dict[str, Any]) -> ManifestCase:
        tasks = {
            name: TaskSlices(
                target=from_ranges(slices["target"]),
                listed=from_ranges(slices["listed"]),
                written=from_ranges(slices["written"]),
                options=CutOptions(**slices["options"]),
            )
            for name, slices in content["tasks"].items()
        }
        z, y, x = content["shape"]
        low, high = content["percentiles"]
        dz, dy, dx = content["spacing"]
        return ManifestCase(
            shape=(z, y, x),
            spacing=(dz, dy, dx),
            scale=content["scale"],
            shift=content["shift"],
            percentiles=(low, high),
            source=content["source"],
            split=content["split"],
            tasks=tasks,
            notes=content["notes"],
        )


@dataclass
class Manifest:
    """The whole of cases.json; window: HU, or None for percentiles."""

    dataset: str
    window: tuple[float, float] | None
    seed: int
    tasks: dict[str, LabelMap] = field(default_factory=dict)
    cases: dict[str, ManifestCase] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        content = {
            "dataset": self.dataset,
            "window": self.window,
            "seed": self.seed,
            "tasks": {name: task.to_dict() for name, task in self.tasks.items()},
            "cases": {name: self.cases[name].to_dict() for name in sorted(self.cases)},
        }
        write_json(folder / MANIFEST, content)

    @staticmethod
    def load(folder: Path) -> Manifest | None:
        """None where there is no cases.json; UserError where there is one that cannot be used."""
        if not (folder / MANIFEST).is_file():
            return None
        content = read_json(folder / MANIFEST)
        try:
            return Manifest(
                dataset=content["dataset"],
                window=tuple(content["window"]) if content["window"] else None,
                seed=content["seed"],
                tasks={name: LabelMap.from_dict(task) for name, task in content["tasks"].items()},
                cases={name: ManifestCase.from_dict(case) for name, case in content["cases"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(f"{folder / MANIFEST}: is damaged; delete the folder and run SliceMaker again") from None


def to_ranges(numbers: Iterable[int]) -> str:
    """[3, 7, 8, 9] -> "3 7-9": short enough for a person to read."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return " ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in runs)


def from_ranges(text: str) -> list[int]:
    """The other way round."""
    numbers: list[int] = []
    for part in text.split():
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers
