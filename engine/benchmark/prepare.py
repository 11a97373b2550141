"""What a benchmark finds in its files before the first run, and which runs that makes."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from datasets.slices.answers import StoredAnswers
from datasets.slices.digests import CONTENTS, SCORED_CONTENTS, contents_fingerprint, files_of
from datasets.slices.slice_folder import SliceFolder, case_of, open_slices
from datasets.slices.training_split import train_val_split
from datasets.slices.unlabelled import held_out_cases, unlabelled_slices
from engine.benchmark.checks import check_initial_weights, check_other_data, refuse_seen_cases
from engine.benchmark.elsewhere import name_other_data
from engine.benchmark.folds import write_folds
from engine.benchmark.options import BenchmarkOptions
from engine.benchmark.rows import EQUAL_TIME, LONGER, ON_DISK, UNDISTILLED, Row, distinct_rows, read_row
from engine.benchmark.runs import Fold, is_trained
from engine.benchmark.teachers import in_turn, teacher_folder, with_teacher
from engine.device import choose_device
from engine.nnunet.segmenter import load_teacher
from engine.options import DataOptions, TrainingOptions, is_nnunet
from engine.segmenter import Segmenter
from engine.training.run import decide_data
from engine.training.teacher_view import other_view_note
from networks import network_name
from utils.errors import UserError
from utils.fingerprint import fingerprint, fingerprint_weights
from utils.progress import print_note


class Prepared(NamedTuple):
    """A benchmark's folds, students and rows; against: the row that gains are over."""

    folds: tuple[Fold, ...]
    students: tuple[str, ...]
    rows: tuple[Row, ...]
    against: str


def prepare(options: BenchmarkOptions, data: DataOptions, training: TrainingOptions) -> Prepared:
    """As planned, with teachers: those that are not given are trained now, or, for a report, their folds left out.

    Each shard begins with the teacher of another fold, and waits for those that others are training.
    """
    shard = options.shard
    with in_turn(options.outpath, shard):
        planned = plan(options, data, training)
    kept = [
        fold
        for fold in planned.folds
        if fold.tckpt or fold.answers or not options.report or is_trained(teacher_folder(fold))
    ]
    first = shard.number - 1 if shard else 0
    taught: dict[int, Fold] = {}
    for place in ((first + turn) % len(kept) for turn in range(len(kept))):
        fold = kept[place]
        if not (fold.tckpt or fold.answers):
            with in_turn(options.outpath, shard, f"{fold.label}teacher"):
                fold = with_teacher(fold, options.teacher_steps)
        taught[place] = fold
    folds = [taught[place] for place in range(len(kept))]
    if not folds:
        raise UserError(f"{options.outpath}: no run is finished yet, so there is nothing to report")
    return planned._replace(folds=tuple(folds))


class Named(NamedTuple):
    """What a benchmark's command names: each row once; repeated: what else a row was called -> its name.

    data: with what the teacher decides. model: the teacher's. teacher, answers: None where it is to be trained.
    """

    students: tuple[str, ...]
    rows: list[Row]
    repeated: dict[str, str]
    against: str
    data: DataOptions
    slices: SliceFolder
    model: str
    teacher: Segmenter | None
    answers: StoredAnswers | None


def find_named(options: BenchmarkOptions, data: DataOptions) -> Named:
    """Look up what the command names, and print what is to be known of the teacher; UserError for what is not there.

    No slice is read yet.
    """
    students = tuple(dict.fromkeys(network_name(name) for name in options.smodel))
    rows = [read_row(word) for word in options.methods]
    if any(row.unlabelled for row in rows) and not options.unlabelled:
        raise UserError("--methods: a row with /unlabelled needs slices to distil on without masks: --unlabelled DIR")
    against = read_against(options.against)
    if against.removesuffix(EQUAL_TIME) not in (UNDISTILLED, LONGER, *(row.name for row in rows)):
        raise UserError(f"--against {options.against}: is no row of this benchmark; name it in --methods too")

    teacher = None
    if options.tckpt:
        teacher, content = load_teacher(options.tckpt, torch.device("cpu"), data)
        if "about" in content:
            print(content["about"], flush=True)
    task = None if data.task is None else str(data.task)
    answers = StoredAnswers.open(options.teacher_probabilities, task) if options.teacher_probabilities else None
    data = decide_data(data, teacher, answers)
    if teacher is not None and (note := other_view_note(data, teacher)):
        print(note, file=sys.stderr)
    slices = open_slices(data.train_data_path, str(data.dataset), str(data.task), "train")
    data = replace(data, task=slices.label_map.name)  # in the spelling of the data
    model = teacher.model if teacher else ON_DISK if answers else network_name(str(options.train_teacher))
    network = str(options.tckpt) if options.tckpt and is_nnunet(options.tckpt) else model
    rows, repeated = distinct_rows(rows, students, network, slices.label_map.num_classes)
    return Named(students, rows, repeated, against, data, slices, model, teacher, answers)


def check_command(options: BenchmarkOptions, data: DataOptions, training: TrainingOptions) -> None:
    """UserError for what `plan` refuses and a moment finds out; writes nothing, and needs no GPU."""
    named = find_named(options, data)
    name_other_data(options.also_test)
    if not options.folds:
        _, scored = find_scored_cases(named.slices, named.data, options.validation_only)
        refuse_seen_cases(training.init, scored)


def plan(options: BenchmarkOptions, data: DataOptions, training: TrainingOptions) -> Prepared:
    """What there is before any training, with folds that lack their teacher where none is given.

    UserError for a row that cannot be trained, or data on which scores would not be honest.
    """
    students, rows, repeated, against, data, slices, model, teacher, answers = find_named(options, data)
    for name, first in repeated.items():
        print_note(f"{name} is {first}, which has a row already")
    folds = []
    for number, splits in find_divisions(options, slices, data.val_fraction, data.test_data_path):
        fold = make_fold(options, replace(data, splits=splits), training, model, number)
        if teacher is not None:
            identity = {**fold.identity, "teacher": fingerprint_weights(teacher.network)}
            fold = replace(fold, tckpt=options.tckpt, identity=identity)
        if answers is not None:
            fold = with_answers(fold, answers, options.teacher_probabilities)
        folds.append(fold)
    check_other_data(folds[0])
    check_initial_weights(training.init, students, folds[0], teacher)
    against = repeated.get(against, against)
    of_equal_time = [row.equal_time() for row in rows]
    if options.matched == "time" and against not in (UNDISTILLED, LONGER) and not against.endswith(EQUAL_TIME):
        against = Row(against).equal_time().name
    trained = {"steps": rows, "time": of_equal_time, "both": [*rows, *of_equal_time]}[options.matched]
    return Prepared(tuple(folds), students, tuple(trained), against)


def read_against(text: str) -> str:
    """The name of a row, as its table has it."""
    if text in (UNDISTILLED, LONGER):
        return text
    row = read_row(text.removesuffix(EQUAL_TIME))
    return row.equal_time().name if text.endswith(EQUAL_TIME) else row.name


def find_divisions(
    options: BenchmarkOptions, slices: SliceFolder, val_fraction: float, test_data_path: Path | None
) -> list[tuple[int | None, Path | None]]:
    """The number and the splits.json of each fold; (None, None) for the slices' own division."""
    if options.folds is None:
        return [(None, None)]
    if test_data_path is not None:
        raise UserError(
            "--folds: every case of the training slices is tested on; use --also_test in place of test data"
        )
    paths = write_folds(slices, options.folds, val_fraction, options.outpath / "folds")
    return [(number, path) for number, path in enumerate(paths) if not options.fold or number in options.fold]


def make_fold(
    options: BenchmarkOptions, data: DataOptions, training: TrainingOptions, model: str, number: int | None
) -> Fold:
    """A fold as it is before its teacher; model: the teacher's."""
    slices = open_slices(data.train_data_path, str(data.dataset), str(data.task), "train", data.splits)
    scoring, scored = find_scored_cases(slices, data, options.validation_only)
    refuse_seen_cases(training.init, scored)
    identity = {
        "model": model,
        "classes": slices.label_map.num_classes,
        "dataset": slices.dataset,
        "task": slices.label_map.name,
        "window": None if data.window is None else list(data.window),
        "size": data.size,
        "crop": data.crop,
        "slices": fingerprint([*slices.train, "", *slices.val_cases]),
        "cases": fingerprint(scored),
        CONTENTS: contents_fingerprint(files_of(slices, slices.train, slices.val_cases)),
        SCORED_CONTENTS: contents_fingerprint(files_of(scoring, (), scored)),
    }
    return Fold(
        number,
        None,
        options.outpath,
        data,
        training,
        count_steps_per_epoch(slices, data.val_fraction, training.batch_size, {0, *options.seeds}),
        identity,
        options.validation_only,
        distances=not options.no_distances,
        threads=1 if options.jobs > 1 and choose_device(training.device).type == "cpu" else 0,
        unlabelled=options.unlabelled,
        unlabelled_identity=identify_unlabelled(options.unlabelled, slices, data.test_data_path),
        also_test=name_other_data(options.also_test),
    )


def with_answers(fold: Fold, answers: StoredAnswers, folders: Sequence[Path]) -> Fold:
    """The fold with a teacher that is answers on disk; UserError unless these are to all of its slices."""
    data = fold.data
    slices = open_slices(data.train_data_path, str(data.dataset), str(data.task), "train", data.splits)
    scoring, scored = find_scored_cases(slices, data, fold.validation_only)
    # Where no cases were set apart to validate on, each seed takes its own of those to train on.
    learnt = {case_of(name)[0] for name in slices.train} | set(slices.val_cases)
    files = [*files_of(slices, (), sorted(learnt)), *files_of(scoring, (), scored)]
    identity = {**fold.identity, "teacher": answers.contents_fingerprint(files)}
    of_unlabelled = fold.unlabelled_identity
    if fold.unlabelled:
        held_out = held_out_cases(slices, data.test_data_path)
        unlabelled = unlabelled_slices(fold.unlabelled, slices, slices.train, held_out)
        of_unlabelled = f"{of_unlabelled}, answers {answers.contents_fingerprint(unlabelled.files)}"
    return replace(fold, answers=tuple(folders), identity=identity, unlabelled_identity=of_unlabelled)


def find_scored_cases(slices: SliceFolder, data: DataOptions, validation_only: bool) -> tuple[SliceFolder, list[str]]:
    """The cases that score the students, and where; UserError where that would not be honest. slices: to train on."""
    if validation_only:
        if not slices.val_cases:
            raise UserError(f"{slices.folder}: has no validation cases set apart; cut the slices with --val_fraction")
        return slices, slices.val_cases
    if slices.split is not None:
        return slices, slices.test_cases
    test = open_slices(data.test_data_path or data.train_data_path, slices.dataset, slices.label_map.name, "test")
    learnt = {*slices.val_cases, *(case_of(name)[0] for name in slices.train)}
    if seen := sorted(learnt & set(test.cases)):
        raise UserError(
            f"{test.folder}: {len(seen)} of its {len(test.cases)} cases train or choose the students ({seen[0]}, ...); "
            "cut the slices with --test_fraction, give --test_data_path, or cross-validate with --folds"
        )
    return test, list(test.cases)


def identify_unlabelled(folders: Sequence[Path], slices: SliceFolder, test_folder: Path | None) -> str | None:
    """What slices without masks there are for the rows that take them; None without folders."""
    if not folders:
        return None
    held_out = held_out_cases(slices, test_folder)
    return fingerprint(unlabelled_slices(folders, slices, slices.train, held_out).names)


def count_steps_per_epoch(
    slices: SliceFolder, val_fraction: float, batch_size: int, seeds: Iterable[int]
) -> dict[int, int]:
    """Seed -> the steps of an epoch of labelled slices alone."""
    counts = {seed: len(train_val_split(slices, val_fraction, seed)[0]) for seed in seeds}
    return {seed: math.ceil(count / batch_size) for seed, count in counts.items()}
