"""What a benchmark finds wrong before the first training, rather than after hours of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.slices.slice_folder import open_slices
from engine.benchmark.elsewhere import labelled_cases
from engine.benchmark.rows import ON_DISK
from engine.benchmark.runs import Fold
from engine.segmenter import Segmenter
from engine.training.initial_weights import build_initialised, cases_behind
from networks import build
from utils.errors import UserError


def check_other_data(fold: Fold) -> None:
    """UserError for other data whose first case cannot be read as the fold's can."""
    if not fold.also_test:
        return
    dataset, task = fold.identity["dataset"], fold.identity["task"]
    slices = open_slices(fold.data.train_data_path, dataset, task, "train", fold.data.splits)
    channel = slices.manifest.channel if slices.manifest else None
    for data in fold.also_test:
        if next(labelled_cases(data, dataset, slices.label_map, fold.data.window, channel), None) is None:
            raise UserError(f"--also_test {data.path}: has no case to score on; give another folder")


def check_initial_weights(init: str | None, students: Sequence[str], fold: Fold, teacher: Segmenter | None) -> None:
    """UserError for weights that fit a network to train nowhere; teacher: None if it is to be trained too."""
    if init is None:
        return
    model, classes = fold.identity["model"], fold.identity["classes"]
    if model == ON_DISK:
        if init == "teacher":
            raise UserError("--init teacher: answers on disk have no weights; give the path of a checkpoint")
        for network in students:
            build_initialised(network, classes, init)
        return
    source = teacher.network if teacher else build(model, classes)
    for network in (*students, *([] if teacher or init == "teacher" else [model])):
        build_initialised(network, classes, init, source)


def refuse_seen_cases(init: str | None, scored: Sequence[str]) -> None:
    """UserError if the checkpoint that networks begin from has learnt from cases that are to score them."""
    if init in (None, "imagenet", "teacher"):
        return
    if seen := sorted(cases_behind(Path(init)) & set(scored)):
        raise UserError(
            f"--init {init}: was trained or chosen on {len(seen)} of the {len(scored)} cases that score the students "
            f"({seen[0]}, ...); give weights that have not seen them"
        )
