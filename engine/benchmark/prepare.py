"""What a benchmark finds in its files before the first run, and which runs that makes."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datasets.slices.slice_folder import SliceFolder, case_of, open_slices
from datasets.slices.training_split import train_val_split
from datasets.slices.unlabelled import held_out_cases, unlabelled_slices
from engine.benchmark.options import BenchmarkOptions
from engine.benchmark.runs import LONGER, UNDISTILLED, Benchmark, Row, distinct_rows, read_row
from engine.device import choose_device
from engine.options import DataOptions, TrainingOptions
from engine.segmenter import Segmenter, load_segmenter
from engine.training.run import decide_data
from networks import network_name
from utils.errors import UserError
from utils.fingerprint import fingerprint, fingerprint_weights

Identity = Mapping[str, Any]


@dataclass(frozen=True)
class Prepared:
    """A benchmark with its students and rows; against: the row that gains are over."""

    benchmark: Benchmark
    students: tuple[str, ...]
    rows: tuple[Row, ...]
    against: str


def prepare(options: BenchmarkOptions, data: DataOptions, training: TrainingOptions) -> Prepared:
    """UserError for a row that cannot be trained, or data on which scores would not be honest."""
    students = tuple(dict.fromkeys(network_name(name) for name in options.smodel))
    rows = [read_row(word) for word in options.methods]
    if any(row.unlabelled for row in rows) and not options.unlabelled:
        raise UserError("--methods: a row with /unlabelled needs slices to distil on without masks: --unlabelled DIR")
    against = options.against if options.against in (UNDISTILLED, LONGER) else read_row(options.against).name
    if against not in (UNDISTILLED, LONGER, *(row.name for row in rows)):
        raise UserError(f"--against {options.against}: is no row of this benchmark; name it in --methods too")

    teacher, _ = load_segmenter(options.tckpt, torch.device("cpu"))
    data = decide_data(data, teacher)
    slices = open_slices(data.train_data_path, teacher.dataset, teacher.label_map.name, "train")
    identity = identify(teacher, slices, data, options.validation_only)
    rows, repeated = distinct_rows(rows, students, teacher.model, teacher.label_map.num_classes)
    for name, first in repeated.items():
        print(f"note: {name} is {first}, which has a row already", file=sys.stderr)
    benchmark = Benchmark(
        options.tckpt,
        options.outpath,
        data,
        training,
        count_steps_per_epoch(slices, data.val_fraction, training.batch_size, options.seeds),
        identity,
        options.validation_only,
        distances=not options.no_distances,
        threads=1 if options.jobs > 1 and choose_device(training.device).type == "cpu" else 0,
        unlabelled=options.unlabelled,
        unlabelled_identity=identify_unlabelled(options.unlabelled, slices, data.test_data_path),
    )
    return Prepared(benchmark, students, tuple(rows), repeated.get(against, against))


def identify(teacher: Segmenter, slices: SliceFolder, data: DataOptions, validation_only: bool) -> Identity:
    """What runs must share to be compared; UserError where scoring would not be honest. slices: to train on."""
    scored = slices.val_cases
    if not validation_only:
        test_path = data.test_data_path or data.train_data_path
        test = open_slices(test_path, teacher.dataset, teacher.label_map.name, "test")
        scored = list(test.cases)
        learnt = {*slices.val_cases, *(case_of(name)[0] for name in slices.train)}
        if seen := sorted(learnt & set(scored)):
            raise UserError(
                f"{test.folder}: {len(seen)} of its {len(scored)} cases train or choose the students ({seen[0]}, ...); "
                "cut the slices with --test_fraction, or give --test_data_path"
            )
    elif not scored:
        raise UserError(f"{slices.folder}: has no validation cases set apart; cut the slices with --val_fraction")
    return {
        "teacher": fingerprint_weights(teacher.network),
        "model": teacher.model,
        "classes": teacher.label_map.num_classes,
        "dataset": teacher.dataset,
        "task": teacher.label_map.name,
        "window": None if teacher.window is None else list(teacher.window),
        "size": teacher.frame.size,
        "crop": teacher.frame.crop,
        "slices": fingerprint([*slices.train, "", *slices.val_cases]),
        "cases": fingerprint(scored),
    }


def identify_unlabelled(folders: Sequence[Path], slices: SliceFolder, test_folder: Path | None) -> str | None:
    """What slices without masks there are for the rows that take them; None without folders."""
    if not folders:
        return None
    held_out = held_out_cases(slices, test_folder)
    return fingerprint(unlabelled_slices(folders, slices, slices.train, held_out).names)


def count_steps_per_epoch(
    slices: SliceFolder, val_fraction: float, batch_size: int, seeds: Sequence[int]
) -> dict[int, int]:
    """Seed -> the steps of an epoch of labelled slices alone."""
    counts = {seed: len(train_val_split(slices, val_fraction, seed)[0]) for seed in seeds}
    return {seed: math.ceil(count / batch_size) for seed, count in counts.items()}
