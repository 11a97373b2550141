"""What a run of SliceMaker has to do: which cases are done, which move to another folder, which are cut."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from datasets.labels import NO_MASK, LabelMap
from datasets.raw.layout import Case, Layout
from datasets.slices.manifest import MANIFEST, CutOptions, Manifest, ManifestCase
from datasets.slices.slice_folder import case_of, list_file, slice_files
from datasets.slicing.cut_case import Job, choose_slices, slice_name
from datasets.splits import Split
from utils.errors import UserError
from utils.files import atomic_write, make_folder
from utils.seeding import generator


class OutputFolder:
    """One folder of slices: its cases.json and the slice numbers on disk of each case."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder = folder
        for leftover in folder.glob(".writing-*"):
            leftover.unlink()
        self.present: dict[str, set[int]] = {}
        for name in slice_files(folder):
            case, index = case_of(name)
            self.present.setdefault(case, set()).add(index)
        known = Manifest.load(folder)
        if known is None and self.present:
            raise UserError(f"{folder}: holds slices but no {MANIFEST}; give an empty folder as --outpath")
        if known is not None and known.dataset != layout.name:
            raise UserError(f"{folder}: holds slices of {known.dataset}; give another --outpath")
        self.record = known or Manifest(layout.name, layout.window, 0)

    def on_disk(self, case: str) -> set[int]:
        return self.present.setdefault(case, set())

    def remove(self, case: str, indices: set[int]) -> None:
        for index in set(indices):
            (self.folder / slice_name(case, index)).unlink(missing_ok=True)
            self.on_disk(case).discard(index)

    def move(self, case: str, to: OutputFolder) -> None:
        """Bring a case's files and its record to another folder."""
        make_folder(to.folder)
        for index in self.on_disk(case):
            (self.folder / slice_name(case, index)).replace(to.folder / slice_name(case, index))
        to.on_disk(case).update(self.present.pop(case))
        to.record.cases[case] = self.record.cases.pop(case)

    def save(self) -> None:
        """Write cases.json; leave none where there are no cases."""
        if self.record.cases:
            self.record.save(self.folder)
        else:
            (self.folder / MANIFEST).unlink(missing_ok=True)

    def write_lists(self) -> None:
        """For each task the slices to train on; for test cases, which train nothing, those with a target."""
        self.drop_lists()
        for task in self.record.tasks if self.record.cases else ():
            names = []
            for case, known in sorted(self.record.cases.items()):
                slices = known.tasks.get(task)
                if slices is not None and known.split != "val":
                    chosen = slices.listed if known.split == "train" else slices.target
                    names += [slice_name(case, index) for index in chosen]
            with atomic_write(list_file(self.folder, self.record.dataset, task)) as temporary:
                np.save(temporary, np.array(names, dtype=np.str_))

    def drop_lists(self) -> None:
        for path in self.folder.glob(list_file(self.folder, self.record.dataset, "*").name):
            path.unlink()


class OutputFolders:
    """The folders of one output, and what each case still needs; test cases among others go to OUT/test."""

    def __init__(
        self,
        inpath: Path,
        outpath: Path,
        layout: Layout,
        task: LabelMap,
        options: CutOptions,
        split: Split,
        seed: int,
    ) -> None:
        self.inpath, self.outpath, self.layout, self.task = inpath, outpath, layout, task
        self.options, self.split, self.seed = options, split, seed
        self.shelves = [OutputFolder(folder, layout) for folder in (outpath, outpath / "train", outpath / "test")]
        self.homes = self.shelves[1:] if split.test and split.train else [self.shelves[0]] * 2
        self.tasks = {name: known for shelf in self.shelves for name, known in shelf.record.tasks.items()}
        if self.tasks.setdefault(task.name, task) != task:
            raise UserError(f"{outpath}: its task {task.name} has other labels; give another --outpath")
        if NO_MASK.name in self.tasks and len(self.tasks) > 1:
            raise UserError(
                f"{outpath}: is for slices {'with' if task == NO_MASK else 'without'} masks; give another --outpath"
            )
        for shelf in self.shelves:
            shelf.record.window, shelf.record.seed, shelf.record.tasks = layout.window, seed, dict(self.tasks)

    def home(self, case: str) -> OutputFolder:
        return self.homes[1] if case in self.split.test else self.homes[0]

    def job(self, case: Case) -> Job | None:
        """What is left to cut of a case; None if it is done. What is already cut moves home first."""
        source, home, kind = fingerprint(case, self.inpath), self.home(case.name), self.split.of(case.name)
        known = self._bring_home(case.name, source)
        options = {name: slices.options for name, slices in known.tasks.items()} if known else {}
        options[self.task.name] = self.options
        if known and options.keys() == known.tasks.keys():
            order = self._draws(case.name).permutation(known.shape[0])
            known.split = kind
            known.tasks = {
                name: choose_slices(slices.target, order, options[name], kind) for name, slices in known.tasks.items()
            }
            if known.written <= home.on_disk(case.name):
                return None
        return Job(
            case=case,
            folder=home.folder,
            labels=tuple(self.layout.labels),
            tasks={name: (self.tasks[name], chosen) for name, chosen in options.items()},
            split=kind,
            hounsfield=self.layout.window is not None,
            draws=self._draws(case.name),
            present=frozenset(home.on_disk(case.name) if known else ()),
            source=source,
        )

    def take(self, case: str, record: ManifestCase) -> None:
        """Keep what a job gave; cases.json is up to date after each case, so that a run can be continued."""
        home = self.home(case)
        home.record.cases[case] = record
        home.on_disk(case).update(record.written)
        home.save()

    def finish(self) -> None:
        """Remove the slices that nothing asks for any more, and write the lists."""
        for shelf in self.shelves:
            for case in sorted(shelf.present):
                known = shelf.record.cases.get(case)
                shelf.remove(case, shelf.on_disk(case) - (known.written if known else set()))
            shelf.save()
            shelf.write_lists()

    def forget_task(self) -> None:
        """Undo the task of this run, whose target is in no case."""
        for shelf in self.shelves:
            shelf.record.tasks.pop(self.task.name)
            for case, known in list(shelf.record.cases.items()):
                known.tasks.pop(self.task.name, None)
                if not known.tasks:
                    del shelf.record.cases[case]

    def _bring_home(self, case: str, source: dict[str, Any]) -> ManifestCase | None:
        """The case's record, its files brought where they belong; None and no files if its source changed."""
        home = self.home(case)
        for shelf in self.shelves:
            known = shelf.record.cases.get(case)
            if known is None or known.source != source:
                shelf.record.cases.pop(case, None)
                shelf.remove(case, shelf.on_disk(case))
            elif shelf is not home:
                shelf.move(case, home)
        return home.record.cases.get(case)

    def _draws(self, case: str) -> np.random.Generator:
        return generator(self.seed, "negatives", case)


def fingerprint(case: Case, inpath: Path) -> dict[str, Any]:
    """What tells that a source has changed: path below `inpath`, bytes, and time of change in ns."""
    source = {}
    for name, path in (("image", case.image), ("label", case.label)):
        if path is not None:
            state = path.stat()
            source[name] = {
                "path": Path(os.path.relpath(path, inpath)).as_posix(),
                "size": state.st_size,
                "mtime_ns": state.st_mtime_ns,
            }
    return source
