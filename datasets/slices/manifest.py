"""The manifest, cases.json: what a folder of slices holds and how it was made."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets.labels import LabelMap
from utils.errors import UserError
from utils.files import read_json, write_json

MANIFEST = "cases.json"
MOST_SLICES = 1 << 20


@dataclass(frozen=True)
class CutOptions:
    """Which slices of training cases are cut.

    slices: "target" for those with the target and a share `negatives` of the others, to train on; "all" for every
    slice, of which the same are on the list to train on.
    """

    slices: str = "target"
    negatives: float = 0.1


@dataclass
class TaskSlices:
    """The slices of a case for one task, by the source's slice numbers.

    target: those with a foreground class; listed: those to train on; written: those on disk.
    """

    target: list[int]
    listed: list[int] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    options: CutOptions = field(default_factory=CutOptions)


@dataclass
class ManifestCase:
    """shape: [Z, Y, X]; spacing: (z, y, x) in mm; percentiles: 0.5 and 99.5, in stored units.

    source: of image and label the path relative to the raw folder, size in bytes and mtime in ns;
    split: train, val or test; tasks: by the task's name; label_geometry: "header" or "array" where the user chose
    how the segmentation lies on the image; hounsfield, any_intensity: whether it was read as CT, and without the check
    of its intensities (None and False of earlier versions); patient: None where the case's name says whose it is;
    orientation: where the source's axes run to, as LPS (None of earlier versions);
    digests: of the written slices' contents, by their numbers (`datasets.slices.digests`), of all cut since there are
    digests.
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
    label_geometry: str | None = None
    hounsfield: bool | None = None
    any_intensity: bool = False
    patient: str | None = None
    orientation: str | None = None
    digests: dict[int, str] = field(default_factory=dict)

    @property
    def written_slices(self) -> set[int]:
        """The slices on disk, for any of the tasks."""
        return {index for slices in self.tasks.values() for index in slices.written}

    def to_dict(self) -> dict[str, Any]:
        digests = " ".join(f"{index}:{self.digests[index]}" for index in sorted(self.digests))
        content = asdict(self) | {"slices": self.shape[0], "digests": digests}
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
        z, y, x = map(operator.index, content["shape"])
        low, high = content["percentiles"]
        dz, dy, dx = map(float, content["spacing"])
        digests = (entry.split(":") for entry in content.get("digests", "").split())
        return ManifestCase(
            shape=(z, y, x),
            spacing=(dz, dy, dx),
            scale=float(content["scale"]),
            shift=float(content["shift"]),
            percentiles=(float(low), float(high)),
            source=content["source"],
            split=content["split"],
            tasks=tasks,
            notes=content["notes"],
            label_geometry=content.get("label_geometry"),
            hounsfield=content.get("hounsfield"),
            any_intensity=content.get("any_intensity", False),
            patient=content.get("patient"),
            orientation=content.get("orientation"),
            digests={int(index): digest for index, digest in digests},
        )


@dataclass
class Manifest:
    """window: in HU, or None for percentiles; tasks: the label maps by the task's name.

    labels: of the source, empty in earlier manifests; channel: which one was cut of images with several.
    """

    dataset: str
    window: tuple[float, float] | None
    seed: int
    tasks: dict[str, LabelMap] = field(default_factory=dict)
    cases: dict[str, ManifestCase] = field(default_factory=dict)
    labels: tuple[int, ...] = ()
    channel: int | None = None

    def save(self, folder: Path, name: str = MANIFEST) -> None:
        content = {
            "dataset": self.dataset,
            "window": self.window,
            "seed": self.seed,
            "labels": list(self.labels),
            "channel": self.channel,
            "tasks": {name: label_map.to_dict() for name, label_map in self.tasks.items()},
            "cases": {name: self.cases[name].to_dict() for name in sorted(self.cases)},
        }
        write_json(folder / name, content)

    @staticmethod
    def load(folder: Path, name: str = MANIFEST) -> Manifest | None:
        """None if the folder has no cases.json; UserError if it has one that cannot be read."""
        if not (folder / name).is_file():
            return None
        content = read_json(folder / name)
        try:
            for each in (*content["tasks"], *content["cases"]):
                # They become the names of files.
                if each in ("", ".", "..") or "/" in each or "\\" in each:
                    raise ValueError(each)
            window = content["window"] and [float(end) for end in content["window"]]
            return Manifest(
                dataset=content["dataset"],
                window=(window[0], window[1]) if window else None,
                seed=content["seed"],
                tasks={task: LabelMap.from_dict(label_map) for task, label_map in content["tasks"].items()},
                cases={case: ManifestCase.from_dict(entry) for case, entry in content["cases"].items()},
                labels=tuple(content.get("labels", ())),
                channel=content.get("channel"),
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError):
            raise UserError(f"{folder / name}: is damaged; delete the folder and run SliceMaker again") from None


def to_ranges(numbers: Iterable[int]) -> str:
    """[3, 7, 8, 9] -> "3 7-9", which keeps cases.json readable."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return " ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in ranges)


def from_ranges(text: str) -> list[int]:
    """ "3 7-9" -> [3, 7, 8, 9]; ValueError for a range that no volume has."""
    numbers: list[int] = []
    for part in text.split():
        first, _, last = part.partition("-")
        if int(last or first) - int(first) > MOST_SLICES:
            raise ValueError(part)
        numbers += range(int(first), int(last or first) + 1)
    return numbers
