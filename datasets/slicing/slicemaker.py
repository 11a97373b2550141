"""The work of SliceMaker: split the cases, cut what is not cut yet, keep cases.json and the lists."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from pathlib import Path

from datasets.labels import NO_MASK, LabelMap
from datasets.raw.find_cases import find_inputs
from datasets.raw.layout import Case, Layout
from datasets.slices.manifest import CutOptions, Manifest, ManifestCase
from datasets.slicing.cut_case import Job, cut_case
from datasets.slicing.output_folders import OutputFolders
from datasets.splits import (
    SPLITS,
    UNLABELLED_FOLDER,
    Split,
    SplitOptions,
    extend_split,
    kept_split,
    save_split,
    split_root,
)
from utils.cores import usable_cores
from utils.errors import UserError
from utils.progress import progress


@dataclass
class Unlabelled:
    """What a run did for cases without segmentation; the numbers as in `Summary`."""

    folder: Path
    cases: int
    cut: int = 0
    slices: int = 0
    new: int = 0
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"cases without segmentation: {self.cases}, {self.cut} cut now, {self.cases - self.cut} done before",
            f"slices without masks: {self.slices} on disk, {self.new} of them new, in {self.folder}",
        ]
        return "\n".join(lines + [f"note: {note}" for note in self.notes])


@dataclass
class Summary:
    """What a run did. origin: of the split; cut: cases read now; slices: on disk, for all tasks; new: of these,
    written now. skipped: cases without segmentation, where `unlabelled` was not asked for.
    """

    split: Split = field(default_factory=lambda: Split([], [], []))
    origin: str = ""
    skipped: list[str] = field(default_factory=list)
    cut: int = 0
    slices: int = 0
    new: int = 0
    listed: int = 0
    without_target: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unlabelled: Unlabelled | None = None

    def __str__(self) -> str:
        parts = [self._of_labelled()] if self.split.names else []
        return "\n".join([*parts, str(self.unlabelled)] if self.unlabelled else parts)

    def _of_labelled(self) -> str:
        train, val, test = (len(names) for names in (self.split.train, self.split.val, self.split.test))
        total = train + val + test
        lines = [
            f"cases: {total} (train {train}, val {val}, test {test}), {self.cut} cut now, "
            f"{total - self.cut} done before",
            f"split: {self.origin}",
            f"slices: {self.slices} on disk, {self.new} of them new, {self.listed} on the list to train on",
        ]
        if self.skipped:
            lines.append(f"skipped, no segmentation (--unlabelled cuts them): {', '.join(self.skipped)}")
        if self.without_target:
            lines.append(f"without the target, negatives only: {', '.join(self.without_target)}")
        return "\n".join(lines + [f"note: {note}" for note in self.notes])


def make_slices(
    inpath: Path,
    outpath: Path,
    layout: Layout,
    task: LabelMap,
    *,
    slices: str = "target",
    negatives: float = 0.1,
    test_fraction: float | None = None,
    val_fraction: float | None = None,
    seed: int | None = None,
    workers: int | None = None,
    mode: str | None = None,
    resplit: bool = False,
    unlabelled: float | None = None,
) -> Summary:
    """Cut the labelled cases of `inpath`; the split is fixed first, saved as splits.json, and kept by later runs.

    test_fraction, val_fraction, seed, mode: None is as saved, or the default of `SplitOptions`; resplit: draw
    anew. Cases that are done with the same options are left alone; a run that was interrupted goes on where it was.
    unlabelled: of each case without segmentation this share of the slices goes to OUT/unlabelled, and `inpath` may
    hold any NIfTI files; None leaves such cases, and that folder, alone.
    """
    if not 0 <= negatives <= 1:
        raise UserError(f"--negatives {negatives:g}: must be from 0 to 1")
    if unlabelled is not None and not 0 < unlabelled <= 1:
        raise UserError(f"--unlabelled {unlabelled:g}: must be above 0 and at most 1")
    if workers is not None and workers < 1:
        raise UserError(f"--workers {workers}: must be at least 1")
    if (root := split_root(outpath)) != outpath:
        raise UserError(f"{outpath}: is a part of the split in {root / SPLITS}; give --outpath {root}")
    cases = layout.find(inpath) if unlabelled is None else find_inputs(inpath, layout.name)
    labelled = [case for case in cases if case.label is not None]
    others = [case for case in cases if case.label is None]
    if not labelled and unlabelled is None:
        raise UserError(
            f"{inpath}: none of its {len(cases)} cases has a segmentation; add those, or cut without by --unlabelled"
        )
    workers = workers or usable_cores()
    summary = Summary()
    if labelled:
        given = {"mode": mode, "seed": seed, "test_fraction": test_fraction, "val_fraction": val_fraction}
        kept, options = kept_split(outpath / SPLITS, given, resplit)
        split = extend_split(kept, [case.name for case in labelled], options)
        summary.split, summary.origin = split, _origin(kept, split, options)
        plan = OutputFolders(inpath, outpath, layout, task, CutOptions(slices, negatives), split, options.seed)
        _cut_labelled(plan, labelled, options, workers, summary)
    if unlabelled is None:
        summary.skipped = [case.name for case in others]
    else:
        summary.unlabelled = _cut_unlabelled(inpath, outpath, layout, cases, unlabelled, seed, workers)
    return summary


def _cut_labelled(
    plan: OutputFolders, cases: Sequence[Case], options: SplitOptions, workers: int, summary: Summary
) -> None:
    names = [case.name for case in cases]
    _refuse_gone(plan, names)
    splits, task = plan.outpath / SPLITS, plan.task.name
    first = not splits.exists()
    save_split(splits, plan.split, options)
    summary.cut, summary.new = _cut(plan, cases, workers)
    if not any(known.tasks[task].target for shelf in plan.shelves for known in shelf.record.cases.values()):
        plan.forget_task()
        plan.finish()
        if first:
            splits.unlink()
        raise UserError(f"{plan.inpath}: no case has the target of task {task}; choose another --task")
    plan.finish()
    _describe(summary, plan, task)


def _cut_unlabelled(
    inpath: Path, outpath: Path, layout: Layout, cases: Sequence[Case], share: float, seed: int | None, workers: int
) -> Unlabelled:
    """They are cut like training cases without the target; a case that got a segmentation since leaves the folder."""
    folder = outpath / UNLABELLED_FOLDER
    others = [case for case in cases if case.label is None]
    names = [case.name for case in others]
    known = Manifest.load(folder)
    options = SplitOptions(seed=seed if seed is not None else known.seed if known else 0)
    plan = OutputFolders(
        inpath, folder, layout, NO_MASK, CutOptions(negatives=share), Split(names, [], []), options.seed
    )
    record = plan.homes[0].record
    for case in cases:
        if case.label is not None:
            record.cases.pop(case.name, None)
    _refuse_gone(plan, names)
    cut, new = _cut(plan, others, workers) if others else (0, 0)
    plan.finish()
    notes = [f"case {name}: {note}" for name, known in record.cases.items() for note in known.notes]
    slices = sum(len(known.written) for known in record.cases.values())
    return Unlabelled(folder, len(others), cut, slices, new, notes)


def _cut(plan: OutputFolders, cases: Sequence[Case], workers: int) -> tuple[int, int]:
    """Cut what is not cut yet: how many cases and how many slices that were."""
    jobs = [job for case in cases if (job := plan.job(case)) is not None]
    for shelf in plan.shelves:
        shelf.drop_lists()
    for shelf in plan.homes:
        shelf.record.save(shelf.folder)
    cut = new = 0
    done = progress(_run(jobs, workers), "cutting", total=len(jobs), unit="case")
    for job, record in done:
        plan.take(job.case.name, record)
        cut += 1
        new += len(record.written - job.present)
        done.set_postfix_str(f"{new / max(done.format_dict['elapsed'], 1e-3):.0f} slices/s", refresh=False)
    return cut, new


def _refuse_gone(plan: OutputFolders, names: Sequence[str]) -> None:
    """UserError if a case that is cut, or that has its part in the split, is no longer in the input."""
    recorded = {name for shelf in plan.shelves for name in shelf.record.cases}
    if gone := sorted((recorded | set(plan.split.names)) - set(names)):
        drawn_only = ", or --resplit" if gone[0] not in recorded else ""
        kind = "without" if plan.task == NO_MASK else "with"
        raise UserError(
            f"{plan.outpath}: lists case {gone[0]}, which {plan.inpath} does not have {kind} a segmentation; "
            f"bring it back or give another --outpath{drawn_only}"
        )


def _origin(kept: Split, split: Split, options: SplitOptions) -> str:
    """Where a split comes from, for people."""
    if not kept.names:
        return f"drawn by {options}; later runs keep it"
    added = len(split.names) - len(kept.names)
    train, val, test = (
        len(now) - len(before)
        for now, before in ((split.train, kept.train), (split.val, kept.val), (split.test, kept.test))
    )
    return f"kept from {SPLITS}; {added} new cases" + (f" (train {train}, val {val}, test {test})" if added else "")


def _describe(summary: Summary, plan: OutputFolders, task: str) -> None:
    for shelf in plan.shelves:
        for name, known in shelf.record.cases.items():
            slices = known.tasks[task]
            summary.slices += len(known.written)
            summary.listed += len(slices.listed) if known.split == "train" else 0
            summary.without_target += [] if slices.target else [name]
            summary.notes += [f"case {name}: {note}" for note in known.notes]


def _fresh_processes() -> BaseContext:
    """Processes without this one's memory, all from one that has loaded the code, where the system can do that."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["datasets.slicing.cut_case"])
    return context


def _run(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, ManifestCase]]:
    """Each job with its result, as they finish; in fresh processes, which hold only what cutting needs."""
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            yield job, cut_case(job)
        return
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)),
        mp_context=_fresh_processes(),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )
    try:
        running = {pool.submit(cut_case, job): job for job in jobs}
        for future in as_completed(running):
            yield running[future], future.result()
    except BrokenProcessPool:
        raise UserError(
            "a worker was ended from outside, most likely for lack of memory; give fewer --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
