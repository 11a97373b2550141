"""Folders of slice files: what SliceMaker writes, and the published preprocessed archive as it is.

The published one has no cases.json, holds float64 `ct` and int8 `mask`, and one case whose masks have
another shape.
"""

from __future__ import annotations

import sys
import zipfile
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.labels import NO_MASK, LabelMap
from datasets.raw import LAYOUTS, open_layout
from datasets.slices.manifest import Manifest
from datasets.splits import split_root
from datasets.window import percentile_window, stored_window
from utils.errors import UserError
from utils.registry import match_name, plain


def list_file(folder: Path, dataset: str, task: str) -> Path:
    """The list of slice names to train on, or, in a test folder, of the slices with a target."""
    return folder / f"{dataset}_{task}_slices.npy"


def slice_files(folder: Path) -> list[str]:
    """The names of the slice files in a folder, in no order."""
    return [path.name for path in folder.glob("[!.]*_*.npz") if path.stem.rpartition("_")[2].isdigit()]


def case_of(name: str) -> tuple[str, int]:
    """`patient001_frame01_7.npz` is slice 7 of patient001_frame01."""
    case, _, index = name.removesuffix(".npz").rpartition("_")
    return case, int(index)


class SliceFolder:
    """A folder of slices seen for one task; slices are read when they are asked for."""

    def __init__(self, folder: Path, dataset: str, label_map: LabelMap, record: Manifest | None) -> None:
        self.folder, self.dataset, self.label_map, self.record = folder, dataset, label_map, record
        self.val_cases = [name for name, case in record.cases.items() if case.split == "val"] if record else []
        self._measured: dict[str, tuple[float, float]] = {}

    @staticmethod
    def open(folder: Path, dataset: str, task_name: str, split: str = "train") -> SliceFolder:
        """Slices in `folder`, or in `folder/split`; UserError with the command to run if there are none."""
        dataset = match_name("dataset", dataset, LAYOUTS)
        if slice_files(folder) and slice_files(folder / split):
            raise UserError(f"{folder}: holds slices itself and in {split}; name the folder that is meant")
        for place in (folder, folder / split):
            record = Manifest.load(place)
            if record is None and not slice_files(place):
                continue
            if record is not None and record.dataset != dataset:
                raise UserError(f"{place}: holds slices of {record.dataset}; give --dataset {record.dataset}")
            if record is not None and NO_MASK.name in record.tasks:
                raise UserError(f"{place}: holds slices without masks; give it to train_kd.py as --unlabelled")
            slices = SliceFolder(place, dataset, _label_map(place, dataset, task_name, record), record)
            if record is None:
                slices._notice_mismatches()
            return slices
        raise UserError(f"{folder}: holds no slices; cut them with: {_command(folder, dataset, task_name)}")

    @cached_property
    def train(self) -> list[str]:
        """The names on the list; UserError if the list is missing, or names a slice that is not there."""
        path = list_file(self.folder, self.dataset, self.label_map.name)
        try:
            names = [str(name) for name in np.load(path, allow_pickle=False)]
        except FileNotFoundError:
            raise UserError(
                f"{path}: no such list; write it with: {_command(self.folder, self.dataset, self.label_map.name)}"
            ) from None
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path}: is not a list of names ({error}); cut the slices again") from None
        names = [name if name.endswith(".npz") else f"{name}.npz" for name in names]
        known = {name for slices in self.cases.values() for name in slices}
        if lost := sorted(set(names) - known):
            raise UserError(f"{self.folder / lost[0]}: is on the list {path.name} but missing; cut the slices again")
        return names

    @cached_property
    def cases(self) -> dict[str, list[str]]:
        """Case -> its slice files, by slice number."""
        found: dict[str, list[tuple[int, str]]] = {}
        for name in slice_files(self.folder):
            case, index = case_of(name)
            if self.record is None or case in self.record.cases:
                found.setdefault(case, []).append((index, name))
        return {case: [name for _, name in sorted(found[case])] for case in sorted(found)}

    def complete(self, case: str) -> bool:
        """Whether every slice is there; without cases.json, as far as the numbers tell."""
        indices = [case_of(name)[1] for name in self.cases.get(case, [])]
        total = self.record.cases[case].shape[0] if self.record else len(indices)
        return total > 0 and indices == list(range(total))

    def spacing(self, case: str) -> tuple[float, float, float] | None:
        """(z, y, x) in mm; None where it is not known."""
        return self.record.cases[case].spacing if self.record else None

    def window(self, case: str, window: tuple[float, float] | None = None) -> tuple[float, float]:
        """(low, high) in stored units: of the user's `window`, the data set's, or the case's percentiles."""
        known = self.record.cases[case] if self.record else None
        window = window or self.dataset_window
        if window is not None:
            return stored_window(window, known.scale if known else 1.0, known.shift if known else 0.0)
        if known is not None:
            low, high = known.percentiles
            return low, max(high, low + 1)
        if case not in self._measured:
            self._measured[case] = percentile_window(self.read_case(case)[0])
        return self._measured[case]

    def read(self, name: str) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        """ct int16 [H, W] and mask uint8 [H, W], the source's labels, of one slice file."""
        ct, mask = self._load(name, "ct", "mask")
        mask = mask.astype(np.uint8, copy=False)
        if mask.shape != ct.shape:
            mask = nearest(mask, (ct.shape[0], ct.shape[1]))
        return _in_int16(ct), mask

    def read_ct(self, name: str) -> NDArray[np.int16]:
        """[H, W] of one slice file, which need not hold a mask."""
        return _in_int16(*self._load(name, "ct"))

    def _load(self, name: str, *arrays: str) -> list[NDArray[Any]]:
        path = self.folder / name
        try:
            with np.load(path, allow_pickle=False) as content:
                return [content[array] for array in arrays]
        except FileNotFoundError:
            raise UserError(f"{path}: is missing; cut the slices again") from None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: is not a slice file ({error}); delete it and cut the slices again") from None

    def read_case(self, case: str) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        """All slices there are of a case, by slice number: [N, H, W] each."""
        slices = [self.read(name) for name in self.cases[case]]
        return np.stack([ct for ct, _ in slices]), np.stack([mask for _, mask in slices])

    @cached_property
    def dataset_window(self) -> tuple[float, float] | None:
        return self.record.window if self.record else open_layout(self.dataset, self.folder).window

    def _notice_mismatches(self) -> None:
        """One line on stderr if masks will be resized, by the first slice of each case."""
        cases = []
        for case, names in self.cases.items():
            shapes = _shapes(self.folder / names[0])
            if len(set(shapes.values())) > 1:
                cases.append(case)
        if cases:
            print(
                f"note: {self.folder}: masks of {', '.join(cases)} have another shape than their ct: "
                "resized with nearest neighbour",
                file=sys.stderr,
            )


def _in_int16(ct: NDArray[Any]) -> NDArray[np.int16]:
    return ct if ct.dtype == np.int16 else np.rint(ct).clip(-32768, 32767).astype(np.int16)


def nearest(mask: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """mask [H, W] resized by nearest neighbour, pixel centres aligned."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp) for new, old in zip(shape, mask.shape, strict=True)
    )
    return mask[np.ix_(rows, columns)]


def _command(folder: Path, dataset: str, task: str) -> str:
    # Cut into train/ itself, the cases would be split a second time, and test cases would train.
    out = split_root(folder)
    return f"python scripts/SliceMaker.py --inpath RAW --outpath {out} --dataset {dataset} --task {task}"


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The arrays of an npz file and their shapes, by their headers alone."""
    shapes = {}
    try:
        with zipfile.ZipFile(path) as content:
            for member in content.namelist():
                with content.open(member) as file:
                    np.lib.format.read_magic(file)
                    shapes[member] = np.lib.format.read_array_header_1_0(file)[0]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: is not a slice file ({error}); delete it and cut the slices again") from None
    return shapes


def _label_map(folder: Path, dataset: str, name: str, record: Manifest | None) -> LabelMap:
    """By cases.json, else by the data set: slices of all labels serve every task."""
    if record is not None:
        for known in record.tasks.values():
            if plain(known.name) == plain(name):
                return known
        if dataset == "msd":
            raise UserError(f"{folder}: was cut for {', '.join(record.tasks)}; {_command(folder, dataset, name)}")
    return open_layout(dataset, folder).label_map(name)


def open_slices(path: Path | None, dataset: str, task: str, split: str) -> SliceFolder:
    """The slices at `path`, or in the repository's data/<dataset>, or in the folder `split` in there."""
    default = Path(__file__).resolve().parents[2] / "data" / dataset
    return SliceFolder.open(path or default, dataset, task, split)
