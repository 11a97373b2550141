"""One run of a benchmark: training, and scores under both protocols."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from time import monotonic

import numpy as np
import torch

from datasets.labelled_cases import cases_in_slices
from datasets.slices.slice_folder import SliceFolder, open_slices
from distillation.distiller import Distiller
from engine.benchmark.elsewhere import score_elsewhere
from engine.benchmark.runs import Fold, Run, run_options, settings
from engine.benchmark.workers import run_all
from engine.device import choose_device, environment
from engine.evaluation.score import RegionScores, score_cases
from engine.evaluation.summaries import case_means
from engine.nnunet.segmenter import load_teacher
from engine.saved_segmenter import load_segmenter
from engine.segmenter import Segmenter
from engine.training.run import make_trainer, train
from utils.files import make_folder, read_json, write_json


def train_and_score_all(runs: Sequence[Run], jobs: int) -> list[str]:
    """What went wrong in each run that failed; prints a line for each run that ends."""
    failures = []
    started = monotonic()
    outcomes = run_all(runs, train_and_score, jobs)
    try:
        for done, (each, failure) in enumerate(outcomes, 1):
            name = f"{each.student} {each.row.name}"
            if failure:
                failures.append(f"{name}: {failure}")
                outcome = f"FAILED: {failure}"
            else:
                minutes = (monotonic() - started) / done * (len(runs) - done) / 60
                dice = read_json(each.folder / "result.json")["dice"]
                outcome = f"Dice {dice:.4f}, about {minutes:.0f} min left"
            fold = "" if each.fold.number is None else f"fold {each.fold.number}, "
            print(f"[{done}/{len(runs)}] {name}, {fold}seed {each.seed}: {outcome}", flush=True)
    except KeyboardInterrupt:
        print("interrupted: the same command continues where it stopped", file=sys.stderr)
        raise
    finally:
        outcomes.close()
    return failures


def train_and_score(run: Run) -> None:
    """Train, or continue training, then score best.ckpt and write result.json; what was printed is in train.log.

    A run that has its result is only scored on other data, where that is missing.
    """
    use_threads(run.fold)
    make_folder(run.folder)
    device = choose_device(run.fold.training.device)
    with logged(run.folder / "train.log"):
        if not (run.folder / "result.json").exists():
            train_run(run, device)
        score_elsewhere(run.fold, run.folder, device)


def train_run(run: Run, device: torch.device) -> None:
    """Train the student and score it on its own data."""
    fold, wanted = run.fold, settings(run)
    write_json(run.folder / "settings.json", wanted)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    needs_teacher = run.row.methods or fold.training.init == "teacher"
    teacher = teacher_of(fold, device) if needs_teacher else None
    trainer = train(make_trainer(run_options(run), teacher))
    # A run that was interrupted when only its scores were missing has no step to time.
    stopwatch, progress, task = trainer.stopwatch, trainer.progress, trainer.task
    step = stopwatch.seconds / stopwatch.steps if stopwatch.steps else None
    shares = task.gradient_share.shares() if isinstance(task, Distiller) else {}
    del trainer, teacher, task
    segmenter, _ = load_segmenter(run.folder / "best.ckpt", device)
    rows = score(fold, segmenter)
    result = {
        **wanted,
        "dice": float(np.nanmean(list(case_means(rows).values()))),
        "gradient_share": shares,
        "step_ms": None if step is None else 1000 * step,
        "seconds": None if step is None else step * wanted["steps"],
        "preparation_s": progress.preparation,
        "best_validation_dice": progress.best,
        "environment": environment(device),
        "rows": rows,
    }
    write_json(run.folder / "result.json", result)
    for unneeded in (run.folder / "last.ckpt", *run.folder.glob("checkpoint_*.ckpt")):
        unneeded.unlink(missing_ok=True)


def teacher_of(fold: Fold, device: torch.device) -> Segmenter | None:
    """None where it is answers on disk."""
    return None if fold.answers else load_teacher(fold.teacher, device, fold.data)[0]


def scored_cases(fold: Fold) -> tuple[SliceFolder, list[str]]:
    """The slices to score on, and which of their cases."""
    part = "train" if fold.validation_only else "test"
    data = fold.data
    path = data.train_data_path if fold.validation_only else data.test_data_path
    slices = open_slices(path or data.train_data_path, str(data.dataset), str(data.task), part, data.splits)
    return slices, slices.val_cases if fold.validation_only else slices.test_cases


def score(fold: Fold, segmenter: Segmenter) -> list[RegionScores]:
    """The test cases, or the validation cases, by both protocols, as result.json keeps them."""
    cases = cases_in_slices(*scored_cases(fold), segmenter.window)
    return score_cases(segmenter, cases, distances=fold.distances, slice_protocol=True).joined()


def use_threads(fold: Fold) -> None:
    """As many as each run is to have; scores depend on it in their last digits."""
    if fold.threads:
        torch.set_num_threads(fold.threads)


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Everything printed goes to the end of a file, the traceback of what goes wrong too."""
    with path.open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        try:
            yield
        except Exception:
            traceback.print_exc(file=log)
            raise
