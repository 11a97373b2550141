"""One folder of slices that SliceMaker writes to."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from datasets.raw.layout import Layout
from datasets.slices.digests import slice_digest
from datasets.slices.manifest import MANIFEST, Manifest, ManifestCase
from datasets.slices.slice_folder import case_of, list_file, slice_files, slice_name
from utils.errors import UserError
from utils.files import atomic_write, make_folder, remove_unfinished
from utils.journal import add_line, read_lines
from utils.shards import ONLY, Shard


class OutputFolder:
    """One folder of slices: its manifest, and the slice numbers on disk of each case."""

    def __init__(self, folder: Path, layout: Layout, shard: Shard | None = None) -> None:
        """What was cut since the manifest was written is taken over; by other shards only where this is none."""
        self.folder, self.shard = folder, shard
        self.slices: dict[str, set[int]] = {}
        for name in slice_files(folder):
            case, index = case_of(name)
            self.on_disk(case).add(index)
        manifest = Manifest.load(folder)
        if manifest is None and self.slices:
            raise UserError(f"{folder}: holds slices but no {MANIFEST}; give an empty folder as --outpath")
        if manifest is not None and manifest.dataset != layout.name:
            raise UserError(f"{folder}: holds slices of {manifest.dataset}; give another --outpath")
        self.manifest = manifest or Manifest(layout.name, layout.window, 0)
        for part in part_files(folder):
            if shard is None or part.name in (part_name(shard), part_name(ONLY)):
                for line in read_lines(part):
                    self.manifest.cases[line["case"]] = ManifestCase.from_dict(line["entry"])

    def on_disk(self, case: str) -> set[int]:
        return self.slices.setdefault(case, set())

    def remove_slices(self, case: str, indices: Collection[int]) -> None:
        for index in list(indices):
            (self.folder / slice_name(case, index)).unlink(missing_ok=True)
            self.on_disk(case).discard(index)

    def remove_case(self, case: str) -> None:
        self.remove_slices(case, self.on_disk(case))
        self.manifest.cases.pop(case, None)

    def move_case(self, case: str, destination: OutputFolder) -> None:
        make_folder(destination.folder)
        for index in self.on_disk(case):
            (self.folder / slice_name(case, index)).replace(destination.folder / slice_name(case, index))
        destination.on_disk(case).update(self.slices.pop(case))
        destination.manifest.cases[case] = self.manifest.cases.pop(case)

    def remove_unused_slices(self) -> None:
        """Delete the slices that the manifest does not ask for."""
        for case in sorted(self.slices):
            entry = self.manifest.cases.get(case)
            self.remove_slices(case, self.on_disk(case) - (entry.written_slices if entry else set()))

    def complete_digests(self) -> None:
        """Drop the digests of slices that are gone, and add those that an earlier version did not write."""
        for case, entry in self.manifest.cases.items():
            for index in entry.digests.keys() - entry.written_slices:
                del entry.digests[index]
            for index in entry.written_slices - entry.digests.keys():
                entry.digests[index] = slice_digest(self.folder / slice_name(case, index))

    def remove_leftovers(self) -> None:
        """Delete the unfinished files of an interrupted run."""
        remove_unfinished(self.folder)

    def save_manifest(self) -> None:
        """Write cases.json, or delete it if there is no case."""
        if self.manifest.cases:
            self.manifest.save(self.folder)
        else:
            (self.folder / MANIFEST).unlink(missing_ok=True)
        self._remove_parts()

    def _remove_parts(self) -> None:
        """What the manifest says by now."""
        for part in part_files(self.folder):
            part.unlink(missing_ok=True)

    def begin(self) -> None:
        """Before any slice is written, the manifest: a folder with slices and without one is refused."""
        if self.shard is None:
            self.manifest.save(self.folder)
            self._remove_parts()
        elif not (self.folder / MANIFEST).exists():
            self.manifest.save(self.folder)

    def add(self, case: str, entry: ManifestCase) -> None:
        """Register a case that was cut; it is saved each time, so that an interrupted run can be continued.

        It goes into a file of this process's own, to which a line is added: the manifest of many cases takes seconds
        to write, and other shards are at it too.
        """
        self.manifest.cases[case] = entry
        self.on_disk(case).update(entry.written_slices)
        add_line(self.folder / part_name(self.shard or ONLY), {"case": case, "entry": entry.to_dict()})

    def write_lists(self) -> None:
        """Write for each task the list of slices to train on; of test cases it lists the target slices."""
        self.remove_lists()
        for task in self.manifest.tasks if self.manifest.cases else ():
            names = []
            for case, entry in sorted(self.manifest.cases.items()):
                slices = entry.tasks.get(task)
                if slices is not None and entry.split != "val":
                    chosen = slices.listed if entry.split == "train" else slices.target
                    names += [slice_name(case, index) for index in chosen]
            with atomic_write(list_file(self.folder, self.manifest.dataset, task)) as temporary:
                np.save(temporary, np.array(names, dtype=np.str_))

    def remove_lists(self) -> None:
        for path in self.folder.glob(list_file(self.folder, self.manifest.dataset, "*").name):
            path.unlink()


def part_name(shard: Shard) -> str:
    """Of the file with what a shard has cut, until all have."""
    return f".{MANIFEST}.{shard.label}.json"


def part_files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f".{MANIFEST}.shard-*-of-*.json"))
