"""All folders of one output of SliceMaker: which cases must be cut, and bringing the folders up to date."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.labels import NO_MASK, LabelMap
from datasets.raw.layout import Case, Layout
from datasets.raw.options import AS_IT_SHOULD_BE, ReadingOptions
from datasets.slices.manifest import CutOptions, ManifestCase
from datasets.slicing.cut_case import CutJob, choose_slices
from datasets.slicing.output_folder import OutputFolder
from datasets.splits import Split
from utils.errors import UserError
from utils.seeding import generator
from utils.shards import Shard


class OutputFolders:
    """All folders of one output: OUT/train and OUT/test where the split has cases for both, or else OUT itself.

    One run cuts for one task, `label_map`; the slices of other tasks in the same folders stay.
    """

    def __init__(
        self,
        inpath: Path,
        outpath: Path,
        layout: Layout,
        label_map: LabelMap,
        options: CutOptions,
        split: Split,
        seed: int,
        reading: ReadingOptions = AS_IT_SHOULD_BE,
        shard: Shard | None = None,
    ) -> None:
        self.shard = shard
        self.inpath, self.outpath, self.layout, self.label_map = inpath, outpath, layout, label_map
        self.options, self.split, self.seed, self.reading = options, split, seed, reading
        places = (outpath, outpath / "train", outpath / "test")
        self.folders = [OutputFolder(folder, layout, shard) for folder in places]
        self.destinations = self.folders[1:] if split.train and split.test else self.folders[:1]
        tasks: dict[str, LabelMap] = {}
        for folder in self.folders:
            tasks |= folder.manifest.tasks
        if tasks.setdefault(label_map.name, label_map) != label_map:
            raise self._of_other_labels(tasks[label_map.name])
        if NO_MASK.name in tasks and len(tasks) > 1:
            kind = "with" if label_map == NO_MASK else "without"
            raise UserError(f"{outpath}: is for slices {kind} masks; give another --outpath")
        self.tasks = tasks
        for folder in self.folders:
            folder.manifest.window, folder.manifest.seed, folder.manifest.tasks = layout.window, seed, dict(tasks)
            folder.manifest.labels, folder.manifest.channel = tuple(layout.labels), layout.channel

    def _of_other_labels(self, before: LabelMap) -> UserError:
        """What has changed since the folders were cut for this task, whose label map was `before`."""
        now, then = ({label for group in task.labels for label in group} for task in (self.label_map, before))
        names = self.layout.labels
        added = " and ".join(f"{label} ({names[label]})" for label in sorted(now - then))
        gone = " and ".join(map(str, sorted(then - now)))
        changes = [f"holds label {added} now" if added else "", f"does not hold label {gone} any more" if gone else ""]
        change = " and ".join(filter(None, changes)) or "names its labels otherwise now"
        return UserError(
            f"{self.outpath}: task {before.name} was cut from other labels, for {self.inpath} {change}; cut all cases "
            "again, into another --outpath"
        )

    def destination(self, case: str) -> OutputFolder:
        """The folder that the split assigns to a case."""
        return self.destinations[-1 if case in self.split.test else 0]

    def entries(self) -> Iterator[tuple[str, ManifestCase]]:
        """The cases in the manifests, each with its entry."""
        for folder in self.folders:
            yield from folder.manifest.cases.items()

    def has_target(self) -> bool:
        """Whether any case has a slice with this run's target."""
        return any(entry.tasks[self.label_map.name].target for _, entry in self.entries())

    def arrange(self, cases: Sequence[Case]) -> None:
        """Bring the folders in line with split, options and sources, as far as possible without reading volumes.

        The slices of changed sources are deleted, the others moved to their destination. Until `finish` there are
        no lists, so that nothing can be trained on a folder that is incomplete. What killed processes were writing is
        deleted, unless other shards may be at work.
        """
        for folder in self.folders if self.shard is None else ():
            folder.remove_leftovers()
        for case in cases:
            self._move_or_remove(case)
            self._choose_again(case)
        for folder in self.folders:
            folder.remove_lists()
        for folder in self.destinations:
            folder.begin()

    def jobs(self, cases: Sequence[Case]) -> list[CutJob]:
        """The cases left to cut after `arrange`: new ones, and those that lack slices or this run's task."""
        return [self._job(case) for case in cases if not self._is_done(case.name)]

    def add(self, case: str, entry: ManifestCase) -> None:
        """Register a case that was cut."""
        folder = self.destination(case)
        if before := folder.manifest.cases.get(case):
            entry.digests = before.digests | entry.digests
        folder.add(case, entry)

    def remove_cases(self, cases: Sequence[str]) -> None:
        for folder in self.folders:
            for case in cases:
                folder.remove_case(case)

    def remove_task(self) -> None:
        """Remove this run's task from the manifests."""
        for folder in self.folders:
            folder.manifest.tasks.pop(self.label_map.name)
            for case, entry in list(folder.manifest.cases.items()):
                entry.tasks.pop(self.label_map.name, None)
                if not entry.tasks:
                    del folder.manifest.cases[case]

    def finish(self) -> None:
        """Delete unused slices and what killed workers were writing, save the manifests and write the lists."""
        for folder in self.folders:
            folder.remove_leftovers()
            folder.remove_unused_slices()
            folder.complete_digests()
            folder.save_manifest()
            folder.write_lists()

    def _move_or_remove(self, case: Case) -> None:
        """Bring the slices of a case to its destination; delete them if its source, or how to read it, has changed."""
        state, destination = source_state(case, self.inpath), self.destination(case.name)
        for folder in self.folders:
            entry = folder.manifest.cases.get(case.name)
            if entry is None or entry.source != state or self._was_read_otherwise(entry):
                folder.remove_case(case.name)
            elif folder is not destination:
                folder.move_case(case.name, destination)

    def _was_read_otherwise(self, entry: ManifestCase) -> bool:
        """Whether image or segmentation were read by other choices; without one, a segmentation's place is kept."""
        turned = entry.label_geometry is not None and self.reading.label_geometry not in (None, entry.label_geometry)
        other_kind = entry.hounsfield not in (None, self.layout.hounsfield)
        return turned or other_kind or (entry.any_intensity and not self.reading.any_intensity)

    def _choose_again(self, case: Case) -> None:
        """Update the manifest entry of a case, if it has one, to the split and the options of this run."""
        entry = self.destination(case.name).manifest.cases.get(case.name)
        if entry is None:
            return
        entry.split, entry.patient = self.split.part_of(case.name), case.patient
        order = self._rng(case.name).permutation(entry.shape[0])
        for name, slices in entry.tasks.items():
            options = self.options if name == self.label_map.name else slices.options
            entry.tasks[name] = choose_slices(slices.target, order, options, entry.split)

    def _is_done(self, case: str) -> bool:
        folder = self.destination(case)
        entry = folder.manifest.cases.get(case)
        return entry is not None and self.label_map.name in entry.tasks and entry.written_slices <= folder.on_disk(case)

    def _job(self, case: Case) -> CutJob:
        folder = self.destination(case.name)
        entry = folder.manifest.cases.get(case.name)
        options = {name: slices.options for name, slices in entry.tasks.items()} if entry else {}
        options[self.label_map.name] = self.options
        return CutJob(
            case=case,
            folder=folder.folder,
            labels=tuple(self.layout.labels),
            tasks={name: (self.tasks[name], chosen) for name, chosen in options.items()},
            split=self.split.part_of(case.name),
            hounsfield=self.layout.hounsfield,
            rng=self._rng(case.name),
            on_disk=frozenset(folder.on_disk(case.name)),
            source=source_state(case, self.inpath),
            reading=self.reading,
            segments=self.layout.segments,
        )

    def _rng(self, case: str) -> np.random.Generator:
        return generator(self.seed, "negatives", case)


def source_state(case: Case, inpath: Path) -> dict[str, Any]:
    """What changes if a source does: path relative to `inpath`, size in bytes and mtime in ns; the image's channel.

    Of a DICOM series the size of all files together, and the newest's mtime.
    """
    source: dict[str, Any] = {"channel": case.channel} if case.channel else {}
    for name, path, files in (("image", case.image, case.sources), ("label", case.label, (case.label,))):
        if path is not None:
            states = [file.stat() for file in files if file is not None]
            source[name] = {
                "path": Path(os.path.relpath(path, inpath)).as_posix(),
                "size": sum(state.st_size for state in states),
                "mtime_ns": max(state.st_mtime_ns for state in states),
            }
    return source
