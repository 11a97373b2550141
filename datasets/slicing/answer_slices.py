"""The work of SliceMaker --teacher_probabilities: which cases' answers are to be cut, and their folder."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from datasets.labels import NO_MASK, LabelMap
from datasets.raw.layout import Case, Layout
from datasets.raw.options import AS_IT_SHOULD_BE, ReadingOptions
from datasets.raw.probabilities import file_of_case, probability_files
from datasets.raw.teacher_labels import (
    ChannelLabels,
    ClassMaker,
    labels_beside,
    read_teacher_labels,
    refuse_other_names,
)
from datasets.slices.answers import FLAG, AnswerFolder, answers_folder, image_state
from datasets.slices.manifest import Manifest, ManifestCase
from datasets.slices.slice_folder import slice_files, slice_name
from datasets.slicing.cut_answers import AnswerJob, cut_answers
from datasets.slicing.options import AnswerOptions
from datasets.splits import UNLABELLED_FOLDER
from utils.cluster import as_it_is, run_on_cluster
from utils.cores import usable_cores
from utils.errors import UserError, join_errors
from utils.files import remove_unfinished
from utils.fingerprint import file_digest
from utils.memory import free_on_host
from utils.parallel import run_in_processes
from utils.progress import progress

SAVE_EVERY = 5.0
"""Seconds from one answers.json to the next: what a killed run has not recorded is cut again."""


@dataclass
class AnswerSummary:
    """cases: with answers; cut: by this run; dice: by case and region, None without a mask; notes: by case.

    makers: what channels stand for, of each kind of teacher; without: test cases that have no answers.
    """

    folder: Path
    cases: int
    cut: int
    dice: dict[str, dict[str, float | None]]
    notes: dict[str, list[str]]
    makers: list[ClassMaker]
    without: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"answers: to {self.cases} cases in {self.folder}, {self.cut} cut now, {self.cases - self.cut} before"]
        lines += [f"answers: {maker}" for maker in self.makers]
        for case, scores in self.dice.items():
            shown = ", ".join(
                f"{region} {'none' if dice is None else f'{dice:.2f}'}" for region, dice in scores.items()
            )
            lines.append(f"answers to {case}: Dice with the mask: {shown or 'no mask'}")
        if self.without:
            lines.append(
                f"test cases without answers, on which this teacher cannot be scored: {', '.join(self.without)}"
            )
        return "\n".join(
            lines + [f"warning: {case}: {note}" for case, of_case in self.notes.items() for note in of_case]
        )


class Answers:
    """Folders of a teacher's probabilities, and which of their files answer for which case."""

    def __init__(self, options: AnswerOptions, cases: Sequence[Case]) -> None:
        """UserError for folders that lack answers: each must have those of all cases, or only one those of a case."""
        self.cases = cases
        self.folders, self.said = options.teacher_probabilities, read_teacher_labels(options.teacher_labels)
        if missing := [folder for folder in self.folders if not folder.is_dir()]:
            raise UserError(f"{FLAG} {missing[0]}: no such folder; give the one that nnU-Net wrote its .npz files to")
        files = [probability_files(folder) for folder in self.folders]
        found = {case.name: [each for of in files if (each := file_of_case(case.name, of))] for case in cases}
        self.files = {name: paths for name, paths in found.items() if paths}
        if not self.files:
            shown = ", ".join(sorted(files[0])[:3]) or "no such files"
            raise UserError(
                f"{FLAG} {self.folders[0]}: answers for none of the {len(found)} cases; expected "
                f"{next(iter(found), 'CASE')}.npz, ..., but it holds {shown}"
            )
        answering = {path.parent for paths in self.files.values() for path in paths}
        if idle := [folder for folder in self.folders if folder not in answering]:
            raise UserError(
                f"{FLAG} {idle[0]}: answers for none of the {len(found)} cases, unlike {next(iter(answering))}; name "
                "its files as the cases, or leave it out"
            )
        counts = Counter(map(len, self.files.values()))
        if set(counts) not in ({1}, {len(self.folders)}):
            some = next(name for name, paths in self.files.items() if len(paths) < len(self.folders))
            raise UserError(
                f"{FLAG}: case {some} has answers in {len(self.files[some])} of {len(self.folders)} folders; an "
                "ensemble needs them in all, the folds of a cross-validation in one each"
            )

    def channels(self, path: Path) -> ChannelLabels | None:
        """What is said of a file's channels."""
        return self.said if self.said is not None else labels_beside(path)

    def sources(self, case: str) -> list[dict[str, Any]]:
        """What answers.json records of the files that answer for a case, but the channels' labels."""
        recorded = []
        for path in self.files[case]:
            state = path.stat()
            recorded.append(
                {"folder": path.parent.name, "file": path.name, "size": state.st_size, "mtime_ns": state.st_mtime_ns}
            )
        return recorded


def answer_slices(
    outpath: Path,
    layout: Layout,
    label_map: LabelMap,
    answers: Answers,
    workers: int | None = None,
    reading: ReadingOptions = AS_IT_SHOULD_BE,
    dask: str | None = None,
) -> AnswerSummary:
    """Cut the answers to all slices that `outpath` has, into SLICES/answers/<task>; what is there already stays.

    dask: the address of a cluster whose workers cut.

    UserError that names the cases whose answers are missing or cannot be used; the others are cut.
    """
    folder = answers_folder(outpath, label_map.name)
    stored = AnswerFolder.load(folder) or AnswerFolder(folder, layout.name, label_map)
    if (stored.dataset, stored.label_map) != (layout.name, label_map):
        raise UserError(f"{folder}: answers for other classes; delete this folder and run the same command again")
    remove_unfinished(folder)
    entries = _entries(outpath)
    wanted = {case.name: case for case in answers.cases if case.name in entries and case.name in answers.files}
    here = {case.name for case in answers.cases}
    without = [name for name in entries if name in here and name not in answers.files]
    _remove_unused(stored, entries, here - wanted.keys())
    jobs = [
        _job(case, entries[name], stored, layout, answers, reading)
        for name, case in wanted.items()
        if not _is_done(stored, name, entries[name], answers)
    ]
    largest = max((math.prod(entries[job.case.name].shape) for job in jobs), default=0)
    at_once = min(workers or usable_cores(), _most_at_once(largest, label_map))
    errors = _cut(stored, jobs, at_once, dask)
    remove_unfinished(folder)
    stored.save()
    errors += [f"case {name}: has no answer" for name in without if entries[name].split != "test"]
    if errors:
        raise UserError(f"{FLAG} {answers.folders[0]}: {len(errors)} cases lack answers: {join_errors(errors)}")
    dice = {name: stored.cases[name].dice for name in wanted}
    notes = {name: stored.cases[name].notes for name in wanted}
    makers = [ClassMaker(channels, label_map) for channels in _channels(stored, wanted)]
    return AnswerSummary(folder, len(wanted), len(jobs), dice, notes, makers, without)


def _most_at_once(voxels: int, label_map: LabelMap) -> int:
    """How many cases of so many voxels memory holds."""
    # Of each the mean, one file's classes, what is made of it and, of regions, all of them; image and masks are less.
    of_case = 4 * max(1, voxels) * (3 * label_map.num_classes + 1)
    free = free_on_host()
    return usable_cores() if free is None else max(1, free // of_case)


def _channels(stored: AnswerFolder, names: Iterable[str]) -> list[ChannelLabels]:
    """All that channels of these cases' files stand for."""
    labels = (source["labels"] for name in names for source in stored.cases[name].sources)
    return list(dict.fromkeys(tuple(tuple(channel) for channel in each) for each in labels))


def _entries(outpath: Path) -> dict[str, ManifestCase]:
    """All cases that are cut, masks or not."""
    folders = [outpath, outpath / "train", outpath / "test", outpath / UNLABELLED_FOLDER]
    return {name: case for manifest in map(Manifest.load, folders) if manifest for name, case in manifest.cases.items()}


def _job(
    case: Case,
    entry: ManifestCase,
    stored: AnswerFolder,
    layout: Layout,
    answers: Answers,
    reading: ReadingOptions,
) -> AnswerJob:
    files = answers.files[case.name]
    if answers.said is None:
        for path in files:
            refuse_other_names(path, stored.label_map)
    if NO_MASK.name in entry.tasks:
        case = replace(case, label=None)  # There may be one that is not to be used.
    sources = [
        each | {"digest": file_digest(path)} for each, path in zip(answers.sources(case.name), files, strict=True)
    ]
    return AnswerJob(
        case=case,
        folder=stored.folder,
        files=tuple((path, answers.channels(path)) for path in files),
        sources=tuple(sources),
        image=image_state(entry.source),
        written=frozenset(entry.written_slices),
        label_map=stored.label_map,
        labels=tuple(layout.labels),
        hounsfield=layout.hounsfield,
        reading=reading,
        segments=layout.segments,
    )


def _is_done(stored: AnswerFolder, name: str, entry: ManifestCase, answers: Answers) -> bool:
    """Whether the answers on disk are of these files, this image and these slices, in the labels asked for."""
    done = stored.cases.get(name)
    if done is None or done.image != image_state(entry.source) or not entry.written_slices <= done.digests.keys():
        return False
    recorded = [{key: source[key] for key in source if key not in ("digest", "labels")} for source in done.sources]
    if recorded != answers.sources(name):
        return False
    labels = [source["labels"] for source in done.sources]
    said = [answers.channels(path) for path in answers.files[name]]
    same = all(new is None or _named(new) == _named(old) for new, old in zip(said, labels, strict=True))
    return same and all((stored.folder / slice_name(name, index)).is_file() for index in entry.written_slices)


def _named(labels: Sequence[Sequence[int]]) -> dict[int, tuple[int, ...]]:
    return {channel: tuple(each) for channel, each in enumerate(labels) if each}


def _cut(stored: AnswerFolder, jobs: Sequence[AnswerJob], workers: int, dask: str | None) -> list[str]:
    """The errors; answers.json is saved every few seconds, for of many cases it takes as long."""
    errors, saved = [], time.monotonic()
    results = (
        run_on_cluster(dask, partial(as_it_is, cut_answers), jobs, lambda job: f"case {job.case.name}")
        if dask
        else run_in_processes(cut_answers, jobs, workers)
    )
    for job, done in progress(results, "answers", total=len(jobs), unit="case"):
        if isinstance(done, UserError):
            errors.append(str(done))
            stored.cases.pop(job.case.name, None)
            continue
        stored.cases[job.case.name] = done
        if time.monotonic() - saved > SAVE_EVERY:
            stored.save()
            saved = time.monotonic()
    return errors


def _remove_unused(stored: AnswerFolder, entries: Mapping[str, ManifestCase], gone: Collection[str]) -> None:
    """Answers to cases that are cut no more, and to slices that are cut no more; gone: cases without files now."""
    for name in [name for name in stored.cases if name not in entries or name in gone]:
        del stored.cases[name]
    kept = {slice_name(name, index) for name in entries.keys() - set(gone) for index in entries[name].written_slices}
    for name in set(slice_files(stored.folder)) - kept:
        (stored.folder / name).unlink()
    for name, entry in stored.cases.items():
        digests = {index: entry.digests[index] for index in entry.digests if index in entries[name].written_slices}
        stored.cases[name] = replace(entry, digests=digests)
