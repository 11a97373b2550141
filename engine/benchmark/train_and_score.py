"""One run of a benchmark: training, and scores under both protocols."""

from __future__ import annotations

import argparse
import math
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.labelled_cases import cases_in_slices
from datasets.slices.slice_folder import SliceFolder, case_of, open_slices
from datasets.slices.training_split import train_val_split
from datasets.slices.unlabelled import held_out_cases, unlabelled_slices
from distillation import build_method
from distillation.task import Distiller, SupervisedTask, TrainingTask
from engine.benchmark.runs import Benchmark, Run, settings, training_args
from engine.device import choose_device, environment
from engine.evaluation.evaluate import CaseScores, score_case, score_case_as_published, training_notice
from engine.segmenter import Segmenter, load_segmenter
from engine.training.run import new_segmenter, train
from networks import file_label
from utils.errors import UserError
from utils.files import make_folder, read_json, write_json
from utils.fingerprint import fingerprint, fingerprint_weights

Identity = Mapping[str, Any]


def identify(tckpt: Path, train_data: Path | None, test_data: Path | None, validation_only: bool) -> Identity:
    """What runs must share to be compared; UserError where scoring would not be honest."""
    segmenter, _ = load_segmenter(tckpt, torch.device("cpu"))
    dataset, task = segmenter.dataset, segmenter.label_map.name
    slices = open_slices(train_data, dataset, task, "train")
    scored = slices.val_cases
    if not validation_only:
        test = open_slices(test_data or train_data, dataset, task, "test")
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
        "teacher": fingerprint_weights(segmenter.network),
        "model": segmenter.model,
        "classes": segmenter.label_map.num_classes,
        "dataset": dataset,
        "task": task,
        "window": None if segmenter.window is None else list(segmenter.window),
        "size": segmenter.frame.size,
        "crop": segmenter.frame.crop,
        "slices": fingerprint([*slices.train, "", *slices.val_cases]),
        "cases": fingerprint(scored),
    }


def identify_unlabelled(folders: Sequence[Path], train_data: Path | None, test_data: Path | None, of: Identity) -> str:
    """What slices without masks there are for the rows that take some."""
    slices = open_slices(train_data, of["dataset"], of["task"], "train")
    held_out = held_out_cases(slices, test_data)
    return fingerprint(unlabelled_slices(folders, slices, slices.train, held_out).names)


def prepare(benchmark: Benchmark, run: Run) -> tuple[argparse.Namespace, TrainingTask, Segmenter, SliceFolder, str]:
    """What `engine.training.run.train` takes, made in the order of train.py and train_kd.py."""
    args = training_args(benchmark, run)
    # Before the student, whose seed decides the draws that follow.
    teacher = load_segmenter(benchmark.tckpt, choose_device(args.device))[0] if run.row.kd else None
    slices = open_slices(args.train_data_path, args.dataset, args.task, "train")
    if args.steps is None:
        # An epoch with unlabelled slices has more steps than one without. Counted in steps, all rows train equally
        # long and at the same learning rates.
        names, _ = train_val_split(slices, args.val_fraction, args.seed)
        batches = -(-len(names) // args.batch_size)
        args.steps, args.val_every = args.epochs * batches, args.val_every * batches
    segmenter = new_segmenter(args, run.student, slices)
    task: TrainingTask
    if teacher is None:
        task = SupervisedTask(segmenter.network)
    else:
        method = build_method(args.kd, segmenter.network.channels, teacher.network.channels)
        task = Distiller(segmenter.network, teacher.network, method, run.row.schedule, run.row.balance)
    return args, task, segmenter, slices, f"{args.dataset}_{args.task}_{file_label(run.student)}"


def perform(benchmark: Benchmark, run: Run) -> None:
    """Train, or go on training, then score best.ckpt and write result.json; what was printed is in train.log."""
    use_threads(benchmark)
    make_folder(run.folder)
    with logged(run.folder / "train.log"):
        wanted = settings(benchmark, run)
        write_json(run.folder / "settings.json", wanted)
        prepared = prepare(benchmark, run)
        device = choose_device(prepared[0].device)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        trainer = train(*prepared)
        # A run that was interrupted when only its scores were missing has no step to time.
        step = trainer.seconds / trainer.timed_steps if trainer.timed_steps else None
        steps, progress = trainer.total_steps, trainer.progress
        del trainer, prepared
        segmenter, _ = load_segmenter(run.folder / "best.ckpt", device)
        rows = score(benchmark, segmenter)
        result = {
            **wanted,
            "dice": float(np.nanmean(list(by_case(rows).values()))),
            "steps": steps,
            "step_ms": None if step is None else 1000 * step,
            "seconds": None if step is None else step * steps,
            "preparation_s": progress.preparation,
            "best_validation_dice": progress.best,
            "environment": environment(device),
            "rows": rows,
        }
        write_json(run.folder / "result.json", result)
        for unneeded in (run.folder / "last.ckpt", *run.folder.glob("checkpoint_*.ckpt")):
            unneeded.unlink(missing_ok=True)


def scored_cases(benchmark: Benchmark, segmenter: Segmenter) -> tuple[SliceFolder, list[str]]:
    """The slices to score on, and which of their cases."""
    split = "train" if benchmark.validation_only else "test"
    path = benchmark.train_data_path if benchmark.validation_only else benchmark.test_data_path
    slices = open_slices(path or benchmark.train_data_path, segmenter.dataset, segmenter.label_map.name, split)
    return slices, slices.val_cases if benchmark.validation_only else list(slices.cases)


def score(benchmark: Benchmark, segmenter: Segmenter) -> list[CaseScores]:
    """One row for each case and region: whole volumes, and the slice protocol as `slice_...`; undefined is None."""
    rows = []
    for case in cases_in_slices(*scored_cases(benchmark, segmenter), segmenter.window):
        whole = score_case(segmenter, case if benchmark.distances else replace(case, spacing=None))
        for row, published in zip(whole, score_case_as_published(segmenter, case), strict=True):
            beside = {f"slice_{key}": published[key] for key in ("dice", "published_voe", "rvd")}
            rows.append({key: _plain(value) for key, value in {**row, **beside}.items()})
    return rows


def by_case(rows: Sequence[CaseScores], metric: str = "dice") -> dict[str, float]:
    """Case -> the mean over its regions of a metric, where defined; else NaN.

    Dice is of regions that the reference has: without one it would be 0 or undefined by the prediction alone.
    """
    of_case: dict[str, list[float]] = {row["case"]: [] for row in rows}
    for row in rows:
        if row[metric] is not None and not (metric == "dice" and lacks_region(row)):
            of_case[row["case"]].append(row[metric])
    return {case: sum(values) / len(values) if values else math.nan for case, values in of_case.items()}


def lacks_region(row: CaseScores) -> bool:
    """Whether the case's reference has nothing of the row's region: only there is the RVD undefined."""
    return row["rvd"] is None


def score_teacher(benchmark: Benchmark, device: str) -> dict[str, Any]:
    """The teacher's rows on the same cases, which of these it has seen, which lack slices: kept in teacher.json."""
    path = benchmark.outpath / "teacher.json"
    setting = {**benchmark.identity, "validation_only": benchmark.validation_only, "distances": benchmark.distances}
    if path.exists() and (known := read_json(path))["settings"] == setting:
        return dict(known)
    segmenter, content = load_segmenter(benchmark.tckpt, choose_device(device))
    rows = score(benchmark, segmenter)
    seen = training_notice(content, by_case(rows))
    slices, cases = scored_cases(benchmark, segmenter)
    incomplete = [case for case in cases if not slices.complete(case)]
    result = {"settings": setting, "seen_in_training": seen, "incomplete": incomplete, "rows": rows}
    write_json(path, result)
    return result


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def use_threads(benchmark: Benchmark) -> None:
    """As many as each run is to have; scores depend on it in their last digits."""
    if benchmark.threads:
        torch.set_num_threads(benchmark.threads)


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Everything printed goes to the end of a file, the traceback of what goes wrong too."""
    with path.open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        try:
            yield
        except Exception:
            traceback.print_exc(file=log)
            raise
