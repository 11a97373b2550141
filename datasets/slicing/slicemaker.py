"""The work of SliceMaker: split the cases, cut those that are not cut yet, keep manifests and lists up to date."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from datasets.labels import NO_MASK, LabelMap
from datasets.raw.cases import FoundCases
from datasets.raw.find_cases import find_cases, find_labelled
from datasets.raw.layout import Case, Layout
from datasets.raw.options import AS_IT_SHOULD_BE, ReadingOptions
from datasets.slices.manifest import CutOptions, Manifest
from datasets.slicing.cut_case import CutJob, cut_case
from datasets.slicing.options import UNLABELLED_SHARE, SliceMakerOptions
from datasets.slicing.output_folders import OutputFolders
from datasets.slicing.summary import SliceMakerSummary, UnlabelledSummary, split_origin
from datasets.splits import (
    SPLITS,
    UNLABELLED_FOLDER,
    Split,
    SplitOptions,
    extend_split,
    save_split,
    saved_split,
    split_root,
)
from utils.cluster import as_it_is, run_on_cluster
from utils.cores import usable_cores
from utils.errors import UserError
from utils.parallel import run_in_processes
from utils.progress import progress
from utils.shards import Shard

# Bytes of files, which are cut in the second that it takes to start one.
WORTH_A_PROCESS = 1 << 25


def make_slices(
    inpath: Path,
    outpath: Path,
    layout: Layout,
    label_map: LabelMap,
    options: SliceMakerOptions,
    reading: ReadingOptions = AS_IT_SHOULD_BE,
    shard: Shard | None = None,
    dask: str | None = None,
) -> SliceMakerSummary:
    """Cut the cases of `inpath` into slices in `outpath`.

    A shard cuts its share of the cases and leaves all that is of the whole, such as the split and the lists, to the
    run without one that follows. dask: the address of a cluster whose workers cut.

    The split is drawn and saved as splits.json before any case is cut; later runs keep it. Cases that are already
    cut with the same options are left alone, so that an interrupted run can be continued. Cases without segmentation
    are cut on request, into OUT/unlabelled; `inpath` may then hold any NIfTI files. Training cases whose masks are not
    to be used go there too.

    All cases that cannot be used are named in one UserError, and the lists to train on are not written; with
    `options.keep_going` they are, and the summary holds the errors.
    """
    if (root := split_root(outpath)) != outpath:
        raise UserError(f"{outpath}: is a part of the split in {root / SPLITS}; give --outpath {root}")
    cases = find_raw(inpath, layout, options)
    labelled = [case for case in cases if case.label is not None]
    if not labelled and (options.unlabelled is None or not cases):
        found = "; ".join([f"{inpath}: none of its {len(cases)} cases has a segmentation", *cases.notes])
        raise UserError(f"{found}; add those, or cut without by --unlabelled")
    summary = SliceMakerSummary()
    if labelled:
        summary = _cut_labelled(inpath, outpath, layout, label_map, labelled, options, reading, shard, dask)
    set_aside = set(summary.split.unlabelled)
    masked = [replace(case, label=None) if case.name in set_aside else case for case in cases]
    folder = outpath / UNLABELLED_FOLDER
    manifest = Manifest.load(folder)
    there = manifest.cases if manifest else {}
    if options.unlabelled is None:
        summary.skipped = [case.name for case in cases if case.label is None and case.name not in there]
        masked = [case for case in masked if case.name not in summary.skipped]
    if options.unlabelled is not None or set_aside or any(case.name in there for case in labelled):
        summary.unlabelled, unusable = _cut_unlabelled(
            inpath, folder, layout, masked, manifest, options, reading, shard, dask
        )
        summary.unlabelled.set_aside = len(set_aside)
        summary.unusable += unusable
    summary.inpath, summary.left_out = inpath, cases.notes
    if not options.keep_going:
        summary.refuse_unusable()
    return summary


def find_raw(inpath: Path, layout: Layout, options: SliceMakerOptions) -> FoundCases:
    """The cases to cut, and those without segmentation that are left out unless asked for."""
    if options.unlabelled is not None:
        return find_cases(inpath, layout.name, layout.channel)
    return find_labelled(layout, inpath)


def _cut_labelled(
    inpath: Path,
    outpath: Path,
    layout: Layout,
    label_map: LabelMap,
    cases: Sequence[Case],
    options: SliceMakerOptions,
    reading: ReadingOptions,
    shard: Shard | None,
    dask: str | None,
) -> SliceMakerSummary:
    names = [case.name for case in cases]
    saved, split_options = saved_split(outpath / SPLITS, options.requested_split, options.resplit)
    split = split_of_cases(saved, cases, split_options)
    cut_options = CutOptions(options.slices, options.negatives)
    folders = OutputFolders(inpath, outpath, layout, label_map, cut_options, split, split_options.seed, reading, shard)
    _refuse_missing_cases(folders, names)
    if shard:
        mine = shard.of([case for case in cases if case.name not in split.unlabelled])
        cut, errors = _cut(folders, mine, options.workers, dask)
        return SliceMakerSummary(cut=len(cut.files), new=cut.new, files=cut.files, unusable=list(errors.values()))
    is_first_run = not (outpath / SPLITS).exists()
    save_split(outpath / SPLITS, split, split_options)
    folders.remove_cases(split.unlabelled)
    used = [case for case in cases if case.name not in split.unlabelled]
    cut, errors = _cut(folders, used, options.workers, dask)
    unusable = list(errors.values())
    if errors and not options.keep_going:
        if is_first_run:
            (outpath / SPLITS).unlink()  # Else a case that is taken away would be missed.
        return SliceMakerSummary(split, unusable=unusable)
    if errors:
        split = split.without(errors)
        save_split(outpath / SPLITS, split, split_options)
    if not folders.has_target():
        folders.remove_task()
        folders.finish()
        if is_first_run:
            (outpath / SPLITS).unlink()
        others = "".join(f"; {error}" for error in unusable)
        raise UserError(f"{inpath}: no case has the target of task {label_map.name}; choose another --task{others}")
    folders.finish()
    origin = split_origin(saved, split, split_options)
    summary = SliceMakerSummary(split, origin, cut=len(cut.files), new=cut.new, files=cut.files, unusable=unusable)
    for name, entry in folders.entries():
        slices = entry.tasks[label_map.name]
        summary.slices += len(entry.written_slices)
        summary.listed += len(slices.listed) if entry.split == "train" else 0
        summary.without_target += [] if slices.target else [name]
        summary.notes[name] = entry.notes
    return summary


def split_of_cases(saved: Split, cases: Sequence[Case], options: SplitOptions) -> Split:
    """`extend_split` with what the data set says of patients and parts."""
    return extend_split(
        saved,
        [case.name for case in cases],
        options,
        {case.name: case.patient for case in cases if case.patient},
        {case.name: case.part for case in cases if case.part},
    )


def _cut_unlabelled(
    inpath: Path,
    outpath: Path,
    layout: Layout,
    cases: Sequence[Case],
    manifest: Manifest | None,
    options: SliceMakerOptions,
    reading: ReadingOptions,
    shard: Shard | None,
    dask: str | None,
) -> tuple[UnlabelledSummary, list[str]]:
    """Cut the cases without segmentation, as training cases that have no target slice; also the errors of others.

    manifest: of earlier runs; their share of slices is kept unless the options give one. Cases that they cut and that
    have a segmentation now are removed from the folder.
    """
    kept = [entry.tasks[NO_MASK.name].options.negatives for entry in manifest.cases.values()] if manifest else []
    cut_options = CutOptions(negatives=options.unlabelled or (kept or [UNLABELLED_SHARE])[0])
    default_seed = manifest.seed if manifest else 0
    seed = SplitOptions(seed=default_seed if options.seed is None else options.seed).seed
    unlabelled = [case for case in cases if case.label is None]
    split = Split([case.name for case in unlabelled], [], [])
    folders = OutputFolders(inpath, outpath, layout, NO_MASK, cut_options, split, seed, reading, shard)
    _refuse_missing_cases(folders, [case.name for case in cases])
    if shard:
        unlabelled = shard.of(unlabelled)
    else:
        folders.remove_cases([case.name for case in cases if case.label is not None])
    cut, errors = _cut(folders, unlabelled, options.workers, dask) if unlabelled else (Cut(), {})
    unusable = list(errors.values())
    if not shard and (options.keep_going or not unusable):
        folders.finish()
    entries = dict(folders.entries())
    notes = {name: entry.notes for name, entry in entries.items()}
    slices = sum(len(entry.written_slices) for entry in entries.values())
    usable = len(unlabelled) - len(unusable)
    return UnlabelledSummary(outpath, usable, len(cut.files), slices, cut.new, notes, files=cut.files), unusable


@dataclass
class Cut:
    """files: of each case that was cut, those that were read; new: how many slices were written."""

    files: dict[str, list[Path]] = field(default_factory=dict)
    new: int = 0


def _cut(
    folders: OutputFolders, cases: Sequence[Case], workers: int | None, dask: str | None
) -> tuple[Cut, dict[str, str]]:
    """Cut what is not on disk yet; what was, and the errors of the other cases, by their names, in their order."""
    cut = Cut()
    if folders.shard and not folders.jobs(cases):
        return cut, {}  # Else a share that is done would take away the lists.
    folders.arrange(cases)
    jobs = folders.jobs(cases)
    errors: dict[str, str] = {}
    results = (
        run_on_cluster(dask, partial(as_it_is, cut_case), jobs, lambda job: f"case {job.case.name}")
        if dask
        else run_in_processes(cut_case, jobs, min(workers or usable_cores(), _most_workers(jobs)))
    )
    bar = progress(results, "cutting", total=len(jobs), unit="case")
    for job, entry in bar:
        if isinstance(entry, UserError):
            errors[job.case.name] = str(entry)
            continue
        folders.add(job.case.name, entry)
        cut.new += len(entry.written_slices - job.on_disk)
        cut.files[job.case.name] = [path for path in (*job.case.sources, job.case.label) if path]
        bar.set_postfix_str(f"{cut.new / max(bar.format_dict['elapsed'], 1e-3):.0f} slices/s", refresh=False)
    in_order = {case.name: errors[case.name] for case in cases if case.name in errors}
    return cut, in_order


def _most_workers(jobs: Sequence[CutJob]) -> int:
    """How many processes the cases are worth: none of its own for what this one has cut before another has started."""
    size = sum(int(file["size"]) for job in jobs for file in job.source.values() if isinstance(file, dict))
    return 1 + size // WORTH_A_PROCESS


def _refuse_missing_cases(folders: OutputFolders, names: Sequence[str]) -> None:
    """UserError if a case that is cut already, or that is part of the split, is no longer in the input."""
    cut = {name for name, _ in folders.entries()}
    if missing := sorted((cut | set(folders.split.all_names)) - set(names)):
        remedy = "" if missing[0] in cut else ", or --resplit"
        kind = "without" if folders.label_map == NO_MASK else "with"
        raise UserError(
            f"{folders.outpath}: lists case {missing[0]}, which {folders.inpath} does not have {kind} a segmentation; "
            f"bring it back or give another --outpath{remedy}"
        )
