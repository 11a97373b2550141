"""The teachers of a benchmark: trained where none was given, and scored on the cases of their folds."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from datasets.slices.answers import StoredAnswers
from datasets.slices.digests import SCORED_CONTENTS, as_recorded
from engine.benchmark.elsewhere import score_on
from engine.benchmark.runs import RESULTS_FORMAT, Fold, conditions, is_result
from engine.benchmark.train_and_score import logged, score, scored_cases, use_threads
from engine.device import choose_device, environment
from engine.evaluation.evaluate import cases_seen_in_training
from engine.evaluation.stored_answers import score_answers
from engine.evaluation.summaries import case_means
from engine.nnunet.segmenter import load_teacher
from engine.options import RunOptions
from engine.saved_segmenter import load_segmenter
from engine.training.run import make_trainer, train
from engine.training.schedule import Schedule
from networks import file_label
from utils.files import make_folder, read_json, write_json
from utils.fingerprint import fingerprint_weights
from utils.lock import only_one
from utils.options import identity
from utils.shards import Shard

SEED = 0


def in_turn(outpath: Path, shard: Shard | None, what: str = "results") -> AbstractContextManager[None]:
    """One shard at a time at what all of them share; a benchmark of one process needs no lock."""
    return only_one(outpath / f".{what}.lock", f"is at the {what}", wait=True) if shard else nullcontext()


def teacher_folder(fold: Fold) -> Path:
    """Where the fold's teacher is trained."""
    return fold.outpath / "teachers" / f"{fold.label}{file_label(fold.identity['model'])}"


def with_teacher(fold: Fold, steps: int | None) -> Fold:
    """The fold with the checkpoint of its teacher, `identity["model"]`, trained now unless it was before.

    steps: for how long; None trains it as long as the students.
    """
    folder = teacher_folder(fold)
    schedule = Schedule.from_options(fold.training, fold.steps_per_epoch[SEED])
    length = (steps or schedule.steps) / schedule.steps
    training = replace(
        fold.training, steps=steps or schedule.steps, val_every=max(1, round(schedule.val_every * length)),
        seed=SEED, checkpoint_path=folder, resume=(folder / "last.ckpt").exists(),
        init=None if fold.training.init == "teacher" else fold.training.init,
    )  # fmt: skip
    options = RunOptions(fold.identity["model"], fold.data, training)
    wanted = {
        "format": RESULTS_FORMAT, **identity(fold.data), **identity(training), "steps": training.steps,
        "val_every": training.val_every, **fold.identity, **conditions(fold),
    }  # fmt: skip
    for key in ("cases", SCORED_CONTENTS):
        del wanted[key]  # Those that are scored do not decide what is trained.
    if not ((folder / "settings.json").exists() and is_result(folder, wanted, anywhere=True)):
        make_folder(folder)
        write_json(folder / "settings.json", wanted)
        print(f"training the teacher: {folder}", flush=True)
        train_teacher(fold, options, wanted)
    result = read_json(folder / "result.json")
    print(f"teacher: {folder}, validation Dice {result['best_validation_dice']:.4f}", flush=True)
    return replace(fold, tckpt=folder / "best.ckpt", identity={**fold.identity, "teacher": result["weights"]})


def train_teacher(fold: Fold, options: RunOptions, wanted: dict[str, Any]) -> None:
    """Train, or continue training, and write result.json; what was printed is in train.log."""
    use_threads(fold)
    with logged(options.folder / "train.log"):
        trainer = train(make_trainer(options))
    segmenter, _ = load_segmenter(options.folder / "best.ckpt", torch.device("cpu"))
    result = {
        **wanted,
        "weights": fingerprint_weights(segmenter.network),
        "best_validation_dice": trainer.progress.best,
        "seconds": trainer.stopwatch.seconds,
        "environment": environment(trainer.precision.device),
    }
    write_json(options.folder / "result.json", result)
    for unneeded in (options.folder / "last.ckpt", *options.folder.glob("checkpoint_*.ckpt")):
        unneeded.unlink()


def score_teacher(fold: Fold) -> dict[str, Any]:
    """The teacher's rows on the same cases, which of these it has seen, which lack slices: kept in teacher.json.

    "also": its rows on other data, by their names.
    """
    path = fold.outpath / f"{fold.label}teacher.json"
    scored = {"validation_only": fold.validation_only, "distances": fold.distances}
    wanted = {"format": RESULTS_FORMAT, **fold.identity, **scored}
    earlier = read_json(path) if path.exists() else {}
    result: dict[str, Any] = (
        earlier
        if as_recorded(earlier.get("settings", {}), wanted) == wanted
        else {"settings": wanted, "also": {}, "paths": {}}
    )
    paths = {data.name: str(data.path) for data in fold.also_test}
    others = [data for data in fold.also_test if result["paths"].get(data.name) != paths[data.name]]
    if "rows" in result and not others:
        return result
    slices, cases = scored_cases(fold)
    if "rows" not in result:
        result["incomplete"] = [case for case in cases if not slices.complete(case)]
    if fold.answers:
        answers = StoredAnswers.open(fold.answers, slices.label_map.name)
        result["rows"] = score_answers(answers, slices, cases, distances=fold.distances)
        # Whoever wrote the answers knows what that teacher was trained on.
        result["seen_in_training"] = []
        write_json(path, result)
        return result
    segmenter, content = load_teacher(fold.teacher, choose_device(fold.training.device), fold.data)
    if "rows" not in result:
        result["rows"] = score(fold, segmenter)
        result["seen_in_training"] = cases_seen_in_training(content, case_means(result["rows"]))
    for data in others:
        result["also"][data.name] = score_on(data, segmenter, fold.distances)
        result["paths"][data.name] = str(data.path)
    write_json(path, result)
    return result
