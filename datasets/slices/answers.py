"""A teacher's answers on disk: log-probabilities of the task's classes for each slice, in the slice's own geometry.

SliceMaker writes them to SLICES/answers/<task>: <case>_<index>.npz, named as the slices, and answers.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.labels import LabelMap
from datasets.slices.arrays import read_arrays
from datasets.slices.digests import file_digests
from datasets.slices.manifest import Manifest
from datasets.slices.slice_folder import SliceFolder, case_of
from datasets.splits import SLICE_FOLDERS
from utils.errors import UserError
from utils.files import read_json, write_json
from utils.fingerprint import fingerprint
from utils.registry import normalise_name

ANSWERS_FOLDER, ANSWERS = "answers", "answers.json"
FLOOR = -16.0
"""The lowest log-probability: 1.1e-7. Above it float16 is at most 2^-8 away, so that a probability is kept to 0.4 % of
itself and to 2e-4 of the whole."""
COMMAND = "python scripts/SliceMaker.py --inpath RAW --outpath {root} --dataset {dataset} --task {task} {flag} DIR"
FLAG = "--teacher_probabilities"


@dataclass
class AnsweredCase:
    """What the answers of a case were made of.

    image: the state of the image as in cases.json; shape: of the image, [Z, Y, X]; affine: its stored axes' (4 x 4);
    sources: for each averaged file its folder, name, size, mtime and digest, and the labels of its channels; dice: of
    the most probable class with the mask, by region, None where neither has any; digests: of each slice's file; notes:
    of what looks wrong.
    """

    image: dict[str, Any]
    shape: tuple[int, int, int]
    affine: list[list[float]]
    sources: list[dict[str, Any]]
    dice: dict[str, float | None] = field(default_factory=dict)
    digests: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        digests = " ".join(f"{index}:{self.digests[index]}" for index in sorted(self.digests))
        return asdict(self) | {"digests": digests}

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> AnsweredCase:
        z, y, x = map(int, content["shape"])
        digests = (entry.split(":") for entry in content["digests"].split())
        return AnsweredCase(
            dict(content["image"]),
            (z, y, x),
            content["affine"],
            list(content["sources"]),
            dict(content["dice"]),
            {int(index): digest for index, digest in digests},
            list(content.get("notes", ())),  # Not recorded by earlier versions.
        )


@dataclass
class AnswerFolder:
    """A folder of answers to slices of one data set, for one task."""

    folder: Path
    dataset: str
    label_map: LabelMap
    cases: dict[str, AnsweredCase] = field(default_factory=dict)

    def save(self) -> None:
        content = {
            "dataset": self.dataset,
            "task": self.label_map.to_dict(),
            "floor": FLOOR,
            "cases": {name: self.cases[name].to_dict() for name in sorted(self.cases)},
        }
        write_json(self.folder / ANSWERS, content)

    @staticmethod
    def load(folder: Path) -> AnswerFolder | None:
        """None if the folder has no answers.json; UserError if it has one that cannot be read."""
        path = folder / ANSWERS
        if not path.is_file():
            return None
        content = read_json(path)
        try:
            cases = {name: AnsweredCase.from_dict(case) for name, case in content["cases"].items()}
            return AnswerFolder(folder, str(content["dataset"]), LabelMap.from_dict(content["task"]), cases)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(f"{path}: is damaged; delete the folder and run SliceMaker with {FLAG} again") from None

    def answers(self, slices: SliceFolder, name: str) -> bool:
        """Whether it answers for this slice, and for the image that the slice was cut from."""
        case, index = case_of(name)
        entry, cut = self.cases.get(case), slices.manifest.cases.get(case) if slices.manifest else None
        if entry is None or cut is None or slices.dataset != self.dataset:
            return False
        return index in entry.digests and (entry.image, entry.shape) == (image_state(cut.source), cut.shape)

    def read(self, name: str) -> NDArray[np.float16]:
        """Log-probabilities [C, H, W] from `FLOOR` to 0; UserError for a file that is damaged."""
        path = self.folder / name
        try:
            (values,) = read_arrays(path, ("log_probabilities",))
            if values.dtype != np.float16 or values.ndim != 3 or len(values) != self.label_map.num_classes:
                raise ValueError(f"it holds {values.dtype} of shape {values.shape}")
        except Exception as error:  # NumPy and zipfile let many kinds out where a file is damaged.
            raise UserError(f"{path}: is no answer to a slice ({error}); run SliceMaker with {FLAG} again") from None
        return values


class StoredAnswers:
    """Answers in one or more folders, for the slices of any folders that they were cut along with."""

    def __init__(self, folders: Sequence[AnswerFolder]) -> None:
        """UserError if they are for different tasks."""
        self.folders = list(folders)
        first = self.folders[0]
        if other := next((each for each in folders if each.label_map != first.label_map), None):
            raise UserError(
                f"{other.folder}: answers for task {other.label_map.name} of {other.dataset}, but {first.folder} for "
                f"{first.label_map.name} of {first.dataset}; give folders of one task"
            )
        self.dataset, self.label_map = first.dataset, first.label_map

    @staticmethod
    def open(paths: Iterable[Path], task: str | None = None) -> StoredAnswers:
        """The answers in folders of slices that SliceMaker wrote, or in folders SLICES/answers/<task> themselves.

        task: which, where there are several. UserError, with the command, where there are none.
        """
        return StoredAnswers([_open(path, task) for path in paths])

    def read(self, slices: SliceFolder, name: str) -> NDArray[np.float16]:
        """As `AnswerFolder.read`, of a slice that `check` has seen."""
        return self._folder_of(slices, name).read(name)

    def check(self, files: Iterable[tuple[SliceFolder, str]]) -> None:
        """UserError for a slice without an answer, or whose image has been changed since."""
        for slices, name in files:
            self._folder_of(slices, name)

    def contents_fingerprint(self, files: Iterable[tuple[SliceFolder, str]]) -> str:
        """The digest of the answers to these slices; UserError for one that is not what answers.json lists."""
        found = sorted({(str(folder.folder), name): folder for folder, name in self._files(files)}.items())
        paths = [folder.folder / name for (_, name), folder in found]
        digests = []
        for ((_, name), folder), digest in zip(found, file_digests(paths, "checking answers"), strict=True):
            case, index = case_of(name)
            if folder.cases[case].digests[index] != digest:
                raise UserError(
                    f"{folder.folder / name}: is not the answer that {ANSWERS} lists; delete it and run SliceMaker "
                    f"with {FLAG} again"
                )
            digests.append(f"{name} {digest}")
        return fingerprint([*self.label_map.classes, *digests])

    def _files(self, files: Iterable[tuple[SliceFolder, str]]) -> list[tuple[AnswerFolder, str]]:
        return [(self._folder_of(slices, name), name) for slices, name in files]

    def _folder_of(self, slices: SliceFolder, name: str) -> AnswerFolder:
        folder = next((each for each in self.folders if each.answers(slices, name)), None)
        if folder is not None:
            return folder
        case, _ = case_of(name)
        known = next((each for each in self.folders if case in each.cases and each.dataset == slices.dataset), None)
        reason = f"{self.folders[0].folder}: has no answer to case {case} of {slices.folder}"
        if known is not None:
            reason = f"{known.folder}: its answers to case {case} are of other slices or of an image that has changed"
        raise UserError(f"{reason}; {_advice(slices.folder, self.dataset, self.label_map.name)}")


def image_state(source: Mapping[str, Any]) -> dict[str, Any]:
    """Of a case's source in cases.json what says whether the image is the same."""
    return {key: value for key, value in source.items() if key != "label"}


def answers_folder(outpath: Path, task: str) -> Path:
    """Where SliceMaker writes the answers of all parts of its output."""
    return outpath / ANSWERS_FOLDER / task


def _open(path: Path, task: str | None) -> AnswerFolder:
    root = path.parent if path.name in SLICE_FOLDERS else path
    places = [path, *sorted((root / ANSWERS_FOLDER).glob("*"))]
    found = [folder for folder in map(AnswerFolder.load, places) if folder is not None]
    if task is not None:
        found = [each for each in found if normalise_name(each.label_map.name) == normalise_name(task)]
    if len(found) > 1:
        tasks = ", ".join(each.label_map.name for each in found)
        raise UserError(f"{FLAG} {path}: holds answers for the tasks {tasks}; choose one with --task")
    if found:
        return found[0]
    if not path.is_dir():
        raise UserError(f"{FLAG} {path}: no such folder; give the folder of slices that SliceMaker wrote with {FLAG}")
    manifest = next(filter(None, map(Manifest.load, (path, *(path / part for part in SLICE_FOLDERS)))), None)
    dataset, chosen = manifest.dataset if manifest else "DATASET", task or "TASK"
    if manifest is not None:
        raise UserError(f"{FLAG} {path}: holds no answers for that task; {_advice(root, dataset, chosen)}")
    command = COMMAND.format(root="SLICES", dataset=dataset, task=chosen, flag=FLAG).removesuffix(" DIR")
    raise UserError(f"{FLAG} {path}: holds no answers to slices; cut them: {command} {path}, then give {FLAG} SLICES")


def _advice(folder: Path, dataset: str, task: str) -> str:
    root = folder.parent if folder.name in SLICE_FOLDERS else folder
    return f"run again: {COMMAND.format(root=root, dataset=dataset, task=task, flag=FLAG)}"
