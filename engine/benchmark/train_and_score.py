"""One run of a benchmark: training, and scores under both protocols."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch

from datasets.labelled_cases import cases_in_slices
from datasets.slices.slice_folder import SliceFolder, open_slices
from engine.benchmark.runs import RESULTS_FORMAT, Benchmark, Run, run_options, settings
from engine.benchmark.workers import run_all
from engine.device import choose_device, environment
from engine.evaluation.evaluate import cases_seen_in_training
from engine.evaluation.score import RegionScores, score_cases
from engine.evaluation.summaries import case_means
from engine.segmenter import Segmenter, load_segmenter
from engine.training.run import make_trainer, train
from utils.files import make_folder, read_json, write_json


def train_and_score_all(benchmark: Benchmark, runs: Sequence[Run], jobs: int) -> list[str]:
    """What went wrong in each run that failed; prints a line for each run that ends."""
    failures = []
    started = monotonic()
    outcomes = run_all(runs, partial(train_and_score, benchmark), jobs)
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
            print(f"[{done}/{len(runs)}] {name}, seed {each.seed}: {outcome}", flush=True)
    except KeyboardInterrupt:
        print("interrupted: the same command continues where it stopped", file=sys.stderr)
        raise
    finally:
        outcomes.close()
    return failures


def train_and_score(benchmark: Benchmark, run: Run) -> None:
    """Train, or continue training, then score best.ckpt and write result.json; what was printed is in train.log."""
    use_threads(benchmark)
    make_folder(run.folder)
    with logged(run.folder / "train.log"):
        wanted = settings(benchmark, run)
        write_json(run.folder / "settings.json", wanted)
        options = run_options(benchmark, run)
        device = choose_device(options.training.device)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        needs_teacher = run.row.methods or options.training.init == "teacher"
        teacher = load_segmenter(benchmark.tckpt, device)[0] if needs_teacher else None
        trainer = train(make_trainer(options, teacher))
        # A run that was interrupted when only its scores were missing has no step to time.
        stopwatch, progress = trainer.stopwatch, trainer.progress
        step = stopwatch.seconds / stopwatch.steps if stopwatch.steps else None
        del trainer, teacher
        segmenter, _ = load_segmenter(run.folder / "best.ckpt", device)
        rows = score(benchmark, segmenter)
        result = {
            **wanted,
            "dice": float(np.nanmean(list(case_means(rows).values()))),
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


def scored_cases(benchmark: Benchmark, segmenter: Segmenter) -> tuple[SliceFolder, list[str]]:
    """The slices to score on, and which of their cases."""
    split = "train" if benchmark.validation_only else "test"
    data = benchmark.data
    path = data.train_data_path if benchmark.validation_only else data.test_data_path
    slices = open_slices(path or data.train_data_path, segmenter.dataset, segmenter.label_map.name, split)
    return slices, slices.val_cases if benchmark.validation_only else list(slices.cases)


def score(benchmark: Benchmark, segmenter: Segmenter) -> list[RegionScores]:
    """The test cases, or the validation cases, by both protocols, as result.json keeps them."""
    cases = cases_in_slices(*scored_cases(benchmark, segmenter), segmenter.window)
    return score_cases(segmenter, cases, distances=benchmark.distances, slice_protocol=True).joined()


def score_teacher(benchmark: Benchmark) -> dict[str, Any]:
    """The teacher's rows on the same cases, which of these it has seen, which lack slices: kept in teacher.json."""
    path = benchmark.outpath / "teacher.json"
    scored = {"validation_only": benchmark.validation_only, "distances": benchmark.distances}
    wanted = {"format": RESULTS_FORMAT, **benchmark.identity, **scored}
    if path.exists() and (earlier := read_json(path))["settings"] == wanted:
        return dict(earlier)
    segmenter, content = load_segmenter(benchmark.tckpt, choose_device(benchmark.training.device))
    rows = score(benchmark, segmenter)
    seen = cases_seen_in_training(content, case_means(rows))
    slices, cases = scored_cases(benchmark, segmenter)
    incomplete = [case for case in cases if not slices.complete(case)]
    result = {"settings": wanted, "seen_in_training": seen, "incomplete": incomplete, "rows": rows}
    write_json(path, result)
    return result


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
