"""Evaluations of a trained network: their cases, their files, and `--mode test`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from tqdm import tqdm

from datasets.labelled_cases import Choose, LabelledCase, cases_in_slices, raw_cases
from datasets.raw import LIST, OWN_LABELS, channel_choice, open_layout
from datasets.raw.cases import FoundCases
from datasets.raw.find_cases import find_labelled
from datasets.raw.layout import Layout
from datasets.raw.options import AS_IT_SHOULD_BE, ListOptions, ReadingOptions
from datasets.slices.slice_folder import SliceFolder, open_slices
from datasets.splits import load_split
from engine.cost import evaluation_speed, network_cost
from engine.device import choose_device
from engine.evaluation.options import CaseOptions, EvaluationOptions
from engine.evaluation.reference import in_labels_of
from engine.evaluation.score import PUBLISHED_METRICS, RegionScores, Scores, score_cases
from engine.evaluation.summaries import format_summary, summarise
from engine.names import coded_name
from engine.options import PredictionOptions, RunOptions
from engine.provenance import describe_launch, digest_of
from engine.saved_segmenter import load_segmenter
from engine.segmenter import Segmenter
from utils.errors import UserError
from utils.files import atomic_write, write_json
from utils.fingerprint import file_digest
from utils.progress import print_note, progress
from utils.registry import normalise_name

CHECKPOINT = "checkpoint"
"""Among the digests of cases; no case has this name."""


def test_run(run: RunOptions, given: Mapping[str, str | None]) -> None:
    """`--mode test`: score the run's best.ckpt on test slices by both protocols, and print the summaries.

    Writes test.json, test.csv and test_published.csv to the run's folder. given: what the user gave for dataset, task,
    and model or smodel; UserError if the checkpoint is of another.
    """
    started = time.monotonic()
    folder = run.folder
    path = folder / "best.ckpt"
    segmenter, checkpoint = load_segmenter(path, choose_device(run.training.device))
    _refuse_another(folder, given, segmenter)
    data = run.data
    test_path = data.test_data_path or (data.train_data_path if data.splits else None)
    slices = open_slices(test_path, segmenter.dataset, segmenter.label_map.name, "test", data.splits)
    print(f"{path}: {segmenter.model} for task {segmenter.label_map.name} of {segmenter.dataset}", flush=True)
    print(f"decision: {segmenter.describe_decision()}", flush=True)
    cases = progress(
        slices_to_score(segmenter, slices, slices.test_cases),
        "testing",
        total=len(slices.test_cases),
        unit="case",
    )
    scores = score_cases(segmenter, cases, batch_size=run.training.batch_size, slice_protocol=True)
    volumes, published = summarise(scores.volumes), summarise(scores.slice_protocol, PUBLISHED_METRICS)
    result = {
        "archived slices": volumes,
        "slice protocol": published,
        "seen_in_training": cases_seen_in_training(checkpoint, slices.test_cases),
        "notes": scores.notes,
        "model": segmenter.model,
        "dataset": segmenter.dataset,
        "task": segmenter.label_map.name,
        "offsets": list(segmenter.offsets),
        "slices from": str(slices.folder),
        **describe_scoring(scores, path, segmenter, time.monotonic() - started),
    }
    write_csv(folder / "test.csv", scores.volumes)
    write_csv(folder / "test_published.csv", scores.slice_protocol)
    write_json(folder / "test.json", result)
    complete = sum(slices.complete(name) for name in slices.test_cases)
    print(f"archived slices of {len(slices.test_cases)} cases, {complete} of them complete\n{format_summary(volumes)}")
    print(f"slice protocol, as published\n{format_summary(published)}")


def _refuse_another(folder: Path, given: Mapping[str, str | None], segmenter: Segmenter) -> None:
    trained = {
        "dataset": segmenter.dataset,
        "task": segmenter.label_map.name,
        "model": segmenter.model,
        "smodel": segmenter.model,
    }
    for option, value in given.items():
        if value and normalise_name(value) != normalise_name(trained[option]):
            raise UserError(
                f"{folder}: was trained with --{option} {trained[option]}, not {value}; "
                f"give --{option} {trained[option]}, or another --checkpoint_path"
            )


def cases_to_score(
    segmenter: Segmenter,
    options: CaseOptions,
    of_list: ListOptions,
    reading: ReadingOptions = AS_IT_SHOULD_BE,
    *,
    names: Sequence[str] = (),
    text: str = "evaluating",
    choose: Choose = list,
) -> tqdm[LabelledCase]:
    """The cases that the options name, with a progress bar; UserError for an unknown one, or where there are none.

    names: of the cases, in place of those that the options name; text: beside the bar; choose: which of them.
    """

    def counted(files: Mapping[str, Sequence[Path]]) -> Sequence[str]:
        chosen = choose(files)
        bar.total = len(chosen)
        return chosen

    def one_by_one() -> Iterator[LabelledCase]:
        yield from read(names, counted)

    names, read = names or named_cases(options), open_cases(segmenter, options, of_list, reading)
    bar = progress(one_by_one(), text, unit="case")
    return bar


def scorer(segmenter: Segmenter, options: EvaluationOptions, prediction: PredictionOptions) -> Callable[..., Scores]:
    """`score_cases` of a network, as the options say."""
    return partial(
        score_cases,
        segmenter,
        batch_size=prediction.batch_size,
        threshold=prediction.threshold,
        volumes=not options.slice_protocol,
        slice_protocol=options.slice_protocol,
    )


def named_cases(options: CaseOptions) -> Sequence[str]:
    """The names of the cases that the options name, () for all; UserError for a part of a split that has none."""
    if not options.splits:
        return options.cases
    part = options.part or "test"
    names: list[str] = getattr(load_split(options.splits), part)
    if not names:
        raise UserError(f"{options.splits}: has no {part} cases; choose another --part")
    return names


class OpenCases(Protocol):
    """Reads cases by their names, all where there are none; what there is was looked up before."""

    def __call__(self, names: Sequence[str], choose: Choose = list) -> Iterator[LabelledCase]: ...


def open_cases(
    segmenter: Segmenter, options: CaseOptions, of_list: ListOptions, reading: ReadingOptions = AS_IT_SHOULD_BE
) -> OpenCases:
    """The raw cases or slices that the options name, looked up once."""
    dataset = options.dataset or segmenter.dataset
    if options.inpath:
        root = options.inpath
        if of_list.window and of_list.window != segmenter.window:
            raise UserError("--window: cases are scored in the window that the network was trained with; leave it out")
        layout = layout_to_score(segmenter, root, dataset, of_list.labels, of_list.window)
        found = find_labelled(layout, root)
        return lambda names, choose=list: raw_cases_to_score(
            segmenter, layout, root, names or None, reading, choose, found
        )
    folder = "test" if (options.part or "test") == "test" else "train"
    slices = open_slices(options.test_data_path, dataset, segmenter.label_map.name, folder)
    return lambda names, choose=list: slices_to_score(segmenter, slices, names or list(slices.cases), choose)


def slices_to_score(
    segmenter: Segmenter, slices: SliceFolder, names: Sequence[str], choose: Choose = list
) -> Iterator[LabelledCase]:
    """`cases_in_slices` in the network's labels; UserError if their classes are others."""
    cases = cases_in_slices(slices, names, segmenter.window, choose)
    trained = (segmenter.dataset, segmenter.label_map)
    return in_labels_of(trained, cases, slices.dataset, slices.label_map, slices.folder)


def layout_to_score(
    segmenter: Segmenter,
    inpath: Path,
    dataset: str,
    labels: Sequence[str] = (),
    window: tuple[float, float] | None = None,
) -> Layout:
    """The layout of raw cases, in the network's window and channel; labels, window: as `open_layout` takes them."""
    # A list has a window where it is of CT, and one that MR was trained with must not make it that.
    if normalise_name(dataset) == LIST:
        window = segmenter.window if segmenter.hounsfield else None
    return open_layout(dataset, inpath, labels, window, channel_choice(dataset, segmenter.channel))


def raw_cases_to_score(
    segmenter: Segmenter,
    layout: Layout,
    inpath: Path,
    names: Sequence[str] | None = None,
    reading: ReadingOptions = AS_IT_SHOULD_BE,
    choose: Choose = list,
    found: FoundCases | None = None,
) -> Iterator[LabelledCase]:
    """`raw_cases` in the network's labels; UserError if they have no such task.

    Labels of the task that the network was not taught are noted.
    """
    name = segmenter.label_map.name
    if name not in layout.tasks:
        raise UserError(
            f"{inpath}: has no task {name}, which the network was trained for, but {', '.join(layout.tasks)}; name its "
            f"labels so, with --dataset {LIST} and --labels, or give other cases"
        )
    task = layout.tasks[name]
    cases = raw_cases(layout, inpath, names, segmenter.window, reading, choose, found)
    cases = in_labels_of((segmenter.dataset, segmenter.label_map), cases, layout.name, task, inpath)
    taught = {label for group in segmenter.label_map.labels for label in group}
    unknown = sorted({label for group in task.labels for label in group} - taught)
    if unknown and layout.name == segmenter.dataset and layout.name not in OWN_LABELS:
        print_note(
            f"{inpath}: task {name} holds label {unknown[0]} ({layout.labels[unknown[0]]}) "
            "here, and did not where the network was trained: it is scored as background"
        )
    return cases


def describe_evaluation(
    scores: Scores, protocol: str, path: Path, segmenter: Segmenter, checkpoint: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """What scripts/evaluate.py writes: summaries by region, how they came about, and what the network costs.

    path: of the checkpoint; seconds: of the launch.
    """
    published = protocol == "slice protocol"
    entries = scores.slice_protocol if published else scores.volumes
    cases = {entry["case"] for entry in entries}
    result = {
        "protocol": protocol,
        "regions": summarise(entries, PUBLISHED_METRICS) if published else summarise(entries),
        "cases": len(cases),
        "model": segmenter.model,
        "task": segmenter.label_map.name,
        "checkpoint": str(path),
        "seen_in_training": cases_seen_in_training(checkpoint, cases),
        "notes": scores.notes,
        "config": checkpoint["config"],
        **network_cost(segmenter),
        **describe_scoring(scores, path, segmenter, seconds),
    }
    if published:
        return result
    return {**result, "offsets": list(segmenter.offsets), "slices_per_second": round(evaluation_speed(entries), 2)}


def describe_scoring(scores: Scores, path: Path, segmenter: Segmenter, seconds: float) -> dict[str, Any]:
    """`describe_launch` with digests of the checkpoint in `path` and of each case's files."""
    of_cases = {**scores.digests, **{case: digest_of(files) for case, files in scores.files.items()}}
    digests = {CHECKPOINT: file_digest(path), **of_cases}
    device = next(segmenter.network.parameters()).device
    return describe_launch(device, digests, segmenter.label_map.classes, seconds)


def cases_seen_in_training(checkpoint: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Those of the cases that the network was trained or validated on, with a note on stderr if there are any."""
    names = list(names)
    own = {*checkpoint["cases"]["train"], *checkpoint["cases"]["val"]}
    seen = sorted(name for name in set(names) if own & {name, coded_name(name)})
    if seen:
        print_note(f"{len(seen)} of these {len(names)} cases chose or trained the network: {', '.join(seen)}")
    return seen


def write_csv(path: Path, lines: Sequence[RegionScores]) -> None:
    """One line for each entry, six digits; undefined is nan, not available is empty."""
    # Formatted first: pandas would make one column of integers, NaN and None a column of floats.
    cells = [{key: f"{v:.6g}" if isinstance(v, float) else v for key, v in line.items()} for line in lines]
    table = pd.DataFrame(cells, dtype=object)
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False)
