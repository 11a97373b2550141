"""Folders of slice files: those that SliceMaker writes, and the published preprocessed archive.

The published archive has no cases.json, holds float64 `ct` and int8 `mask`, and the masks of one of its cases
have another shape than their slices.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.labels import NO_MASK, LabelMap, resize_labels
from datasets.raw import LAYOUTS, OWN_LABELS, open_layout
from datasets.raw.intensities import level_counts
from datasets.slices.arrays import read_arrays
from datasets.slices.manifest import MANIFEST, Manifest
from datasets.splits import Split, load_split, split_root
from datasets.window import percentile_window, stored_window
from utils.errors import UserError
from utils.progress import print_note
from utils.registry import match_name, normalise_name
from utils.stored_as import StoredAs


def list_file(folder: Path, dataset: str, task: str) -> Path:
    """The list of the slices to train on; in a test folder, of the slices with a target."""
    return folder / f"{dataset}_{task}_slices.npy"


def slice_files(folder: Path) -> list[str]:
    """The names of the slice files in a folder, unordered."""
    return [path.name for path in folder.glob("[!.]*_*.npz") if path.stem.rpartition("_")[2].isdigit()]


def slice_name(case: str, index: int) -> str:
    """The file name of one slice; the case's name may itself contain underscores."""
    return f"{case}_{index}.npz"


def case_of(name: str) -> tuple[str, int]:
    """`patient001_frame01_7.npz` is slice 7 of patient001_frame01."""
    case, _, index = name.removesuffix(".npz").rpartition("_")
    return case, int(index)


class SliceFolder:
    """A folder of slices for one task. Slices are read on request; `manifest` is None without a cases.json.

    split: which cases train, validate and test, in place of what they were cut for.
    """

    def __init__(
        self,
        folder: Path,
        dataset: str,
        label_map: LabelMap,
        manifest: Manifest | None,
        split: Split | None = None,
    ) -> None:
        self.folder, self.dataset, self.label_map, self.manifest = folder, dataset, label_map, manifest
        self.split = split
        cut_for = {name: case.split for name, case in manifest.cases.items()} if manifest else {}
        self.val_cases = split.val if split else [name for name, part in cut_for.items() if part == "val"]
        self._percentile_windows: dict[str, tuple[float, float]] = {}

    @staticmethod
    def open(folder: Path, dataset: str, task: str, split: str = "train") -> SliceFolder:
        """The slices in `folder` or in `folder/split`; UserError with the SliceMaker command if there are none."""
        dataset = match_name("dataset", dataset, LAYOUTS)
        if slice_files(folder) and slice_files(folder / split):
            raise UserError(f"{folder}: holds slices itself and in {split}; give the one to use")
        for place in (folder, folder / split):
            manifest = Manifest.load(place)
            if manifest is None and not slice_files(place):
                continue
            if manifest is not None and manifest.dataset != dataset:
                raise UserError(f"{place}: holds slices of {manifest.dataset}; give --dataset {manifest.dataset}")
            if manifest is not None and NO_MASK.name in manifest.tasks:
                raise UserError(f"{place}: holds slices without masks; give it to train_kd.py as --unlabelled")
            slices = SliceFolder(place, dataset, _label_map(place, dataset, task, manifest), manifest)
            if manifest is None:
                slices._report_resized_masks()
            return slices
        raise UserError(f"{folder}: holds no slices; cut them with: {_cut_command(folder, dataset, task)}")

    def with_split(self, path: Path) -> SliceFolder:
        """The same slices, divided as a splits.json says; UserError if that needs slices that are not here."""
        split = load_split(path, self.patients)
        if self.manifest is None:
            raise UserError(
                f"{self.folder}: has no {MANIFEST}, so it cannot be divided by {path}; cut the slices again"
            )
        if missing := sorted(set(split.names) - set(self.cases)):
            raise UserError(f"{path}: names case {missing[0]}, of which {self.folder} has no slices")
        if incomplete := [case for case in (*split.val, *split.test) if not self.complete(case)]:
            raise UserError(
                f"{self.folder}: lacks slices of case {incomplete[0]}, which {path} validates or tests on; cut the "
                "slices with --slices all"
            )
        return SliceFolder(self.folder, self.dataset, self.label_map, self.manifest, split)

    @property
    def test_cases(self) -> list[str]:
        """Those of the split, or all cases."""
        return self.split.test if self.split else list(self.cases)

    @cached_property
    def train(self) -> list[str]:
        """The slice files to train on; UserError if their list is missing, or names a file that is missing."""
        if self.split is not None:
            assert self.manifest is not None
            cases = [(case, self.manifest.cases[case].tasks.get(self.label_map.name)) for case in self.split.train]
            names = [slice_name(case, index) for case, slices in cases if slices for index in slices.listed]
            if not names:
                command = _cut_command(self.folder, self.dataset, self.label_map.name)
                raise UserError(f"{self.folder}: was not cut for {self.label_map.name}; cut it with: {command}")
            return names
        path = list_file(self.folder, self.dataset, self.label_map.name)
        try:
            listed = np.load(path, allow_pickle=False)
            listed = listed.astype(listed.dtype.newbyteorder("="))
            if listed.dtype.kind != "U" or listed.view(np.uint32).max(initial=0) > sys.maxunicode:
                raise ValueError("it holds no text")
            names = [str(name) for name in listed.ravel()]
        except FileNotFoundError:
            raise UserError(
                f"{path}: no such list; write it with: {_cut_command(self.folder, self.dataset, self.label_map.name)}"
            ) from None
        except Exception as error:  # NumPy lets many kinds out where a file is damaged.
            raise UserError(f"{path}: is not a list of slice names ({error}); cut the slices again") from None
        names = [name if name.endswith(".npz") else f"{name}.npz" for name in names]
        existing = {name for slices in self.cases.values() for name in slices}
        if missing := sorted(set(names) - existing):
            raise UserError(f"{self.folder / missing[0]}: is on the list {path.name} but missing; cut the slices again")
        return names

    @cached_property
    def cases(self) -> dict[str, list[str]]:
        """Case -> its slice files in the order of the slice numbers."""
        found: dict[str, list[tuple[int, str]]] = {}
        for name in slice_files(self.folder):
            case, index = case_of(name)
            if self.manifest is None or case in self.manifest.cases:
                found.setdefault(case, []).append((index, name))
        return {case: [name for _, name in sorted(found[case])] for case in sorted(found)}

    def complete(self, case: str) -> bool:
        """Whether no slice is missing; without a manifest, whether the slice numbers have no gap."""
        indices = [case_of(name)[1] for name in self.cases.get(case, [])]
        total = self.manifest.cases[case].shape[0] if self.manifest else len(indices)
        return total > 0 and indices == list(range(total))

    def refuse_gaps(self, cases: Iterable[str]) -> None:
        """UserError with the SliceMaker command if one of the cases lacks slices, which blocks would miss."""
        if gaps := [case for case in cases if not self.complete(case)]:
            tasks = [*self.manifest.tasks] if self.manifest else [self.label_map.name]
            command = f"{_cut_command(self.folder, self.dataset, tasks[0])} --slices all"
            if NO_MASK.name in tasks:
                command = f"python scripts/SliceMaker.py --inpath ANY_CT --outpath {self.folder.parent} --unlabelled 1"
            raise UserError(
                f"{self.folder}: lacks slices of case {gaps[0]}, and blocks need all of them; cut them with: {command}"
            )

    def upward(self, case: str) -> list[str]:
        """The slice files of a case from inferior to superior, as volumes that are read from files lie.

        In the order of the slice numbers where it was not recorded how the source lies.
        """
        stored_as = self.stored_as(case)
        return self.cases[case][:: -1 if stored_as and "I" in stored_as.orientation else 1]

    def around(self, name: str, below: int, above: int) -> list[str]:
        """The slice files from so many below one to so many above it; beyond the volume its outermost slice again.

        UserError if the case lacks slices.
        """
        case, _ = case_of(name)
        self.refuse_gaps([case])
        names = self.upward(case)
        index = names.index(name)
        return [names[min(max(i, 0), len(names) - 1)] for i in range(index - below, index + above + 1)]

    def spacing(self, case: str) -> tuple[float, float, float] | None:
        """(z, y, x) in mm; None without a manifest."""
        return self.manifest.cases[case].spacing if self.manifest else None

    def stored_as(self, case: str) -> StoredAs | None:
        """How the case's slices are stored; None where that was not recorded when they were cut."""
        entry = self.manifest.cases[case] if self.manifest else None
        if entry is None or entry.orientation is None:
            return None
        return StoredAs(entry.spacing, entry.scale, entry.shift, entry.orientation)

    @property
    def patients(self) -> dict[str, str]:
        """Case -> patient, of the cases whose names do not say it."""
        entries = self.manifest.cases if self.manifest else {}
        return {case: entry.patient for case, entry in entries.items() if entry.patient}

    def window(self, case: str, window: tuple[float, float] | None = None) -> tuple[float, float]:
        """(low, high) in stored units, of `window` in HU; by default the data set's, or the case's percentiles."""
        entry = self.manifest.cases[case] if self.manifest else None
        window = window or self.dataset_window
        if window is not None:
            scale, shift = (entry.scale, entry.shift) if entry else (1.0, 0.0)
            return stored_window(window, scale, shift, f"{self.folder}: case {case}")
        if entry is not None:
            low, high = entry.percentiles
            return low, max(high, low + 1)
        if case not in self._percentile_windows:
            self._percentile_windows[case] = percentile_window(level_counts(self.read_case(case)[0]))
        return self._percentile_windows[case]

    def read(self, name: str) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        """ct int16 [H, W] and mask uint8 [H, W] of source labels, from one slice file."""
        ct, mask = self._load(name, "ct", "mask")
        mask = mask.astype(np.uint8, copy=False)
        if mask.shape != ct.shape:
            mask = resize_labels(mask, (ct.shape[0], ct.shape[1]))
        return _to_int16(ct), mask

    def read_ct(self, name: str) -> NDArray[np.int16]:
        """int16 [H, W] from one slice file, with or without a mask."""
        return _to_int16(*self._load(name, "ct"))

    def _load(self, name: str, *arrays: str) -> list[NDArray[Any]]:
        path = self.folder / name
        try:
            return [_checked(content, name) for name, content in zip(arrays, read_arrays(path, arrays), strict=True)]
        except FileNotFoundError:
            raise UserError(f"{path}: is missing; cut the slices again") from None
        except Exception as error:  # NumPy and zipfile let many kinds out where a file is damaged.
            raise UserError(f"{path}: is not a slice file ({error}); delete it and cut the slices again") from None

    def read_case(self, case: str) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        """ct and mask of all slices on disk of a case, in the order of the slice numbers: [N, H, W] each."""
        return self.read_slices(self.cases[case])

    def read_slices(self, names: Iterable[str]) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        """ct and mask of slice files of one case, [N, H, W] each."""
        slices = [self.read(name) for name in names]
        return np.stack([ct for ct, _ in slices]), np.stack([mask for _, mask in slices])

    @cached_property
    def dataset_window(self) -> tuple[float, float] | None:
        """(low, high) in HU; None for percentiles."""
        return self.manifest.window if self.manifest else open_layout(self.dataset, self.folder).window

    def _report_resized_masks(self) -> None:
        """One line on stderr if masks will be resized; only the first slice of each case is checked."""
        cases = []
        for case, names in self.cases.items():
            shapes = _shapes(self.folder / names[0])
            if len(set(shapes.values())) > 1:
                cases.append(case)
        if cases:
            print_note(
                f"{self.folder}: masks of {', '.join(cases)} have another shape than their ct: "
                "resized with nearest neighbour"
            )


def _checked(array: NDArray[Any], name: str) -> NDArray[Any]:
    """The array; ValueError unless it is a picture of finite numbers."""
    if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "biuf":
        raise ValueError(f"{name} has shape {array.shape} and type {array.dtype}, not [H, W] of numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} has {np.count_nonzero(~np.isfinite(array))} values that are not finite")
    return array


def _to_int16(ct: NDArray[Any]) -> NDArray[np.int16]:
    return ct if ct.dtype == np.int16 else np.rint(ct).clip(-32768, 32767).astype(np.int16)


def _cut_command(folder: Path, dataset: str, task: str) -> str:
    # With train/ itself as --outpath, the cases would be split a second time, and test cases would be trained on.
    root = split_root(folder)
    return f"python scripts/SliceMaker.py --inpath RAW --outpath {root} --dataset {dataset} --task {task}"


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays in an npz file, read from their headers."""
    shapes = {}
    try:
        with zipfile.ZipFile(path) as content:
            for member in content.namelist():
                with content.open(member) as file:
                    np.lib.format.read_magic(file)
                    shapes[member] = np.lib.format.read_array_header_1_0(file)[0]
    except Exception as error:  # As above.
        raise UserError(f"{path}: is not a slice file ({error}); delete it and cut the slices again") from None
    return shapes


def _label_map(folder: Path, dataset: str, task: str, manifest: Manifest | None) -> LabelMap:
    """The manifest's, or else the data set's: slices hold all source labels, so any task can use them.

    Not where the raw data says what the labels mean, for it is not here.
    """
    tasks = manifest.tasks if manifest is not None else {}
    for label_map in tasks.values():
        if normalise_name(label_map.name) == normalise_name(task):
            return label_map
    layout = None if manifest is not None and dataset in OWN_LABELS else open_layout(dataset, folder)
    if layout is None or (manifest and manifest.labels and set(manifest.labels) != set(layout.labels)):
        command = _cut_command(folder, dataset, task)
        raise UserError(f"{folder}: was cut for {', '.join(tasks)}; cut it for {task} with: {command}")
    return layout.label_map(task)


def open_slices(path: Path | None, dataset: str, task: str, split: str, splits: Path | None = None) -> SliceFolder:
    """The slices in `path`, by default the repository's data/<dataset>, or in the folder `split` below it.

    splits: a file that says which cases train, validate and test, in place of what they were cut for.
    """
    default = Path(__file__).resolve().parents[2] / "data" / dataset
    slices = SliceFolder.open(path or default, dataset, task, split)
    return slices.with_split(splits) if splits else slices
