"""The one way from options to a run, for train.py, train_kd.py, the benchmark and the step timer."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from datasets.blocks import BlockDataset
from datasets.frame import Frame
from datasets.loader import SliceDataset, TrainingLoader
from datasets.raw import LAYOUTS
from datasets.slices.answers import StoredAnswers
from datasets.slices.digests import CONTENTS, contents_fingerprint, files_of
from datasets.slices.slice_folder import SliceFolder, case_of, open_slices
from datasets.slices.training_split import cases_for_training
from datasets.slices.unlabelled import UnlabelledSlices, held_out_cases, unlabelled_slices
from distillation import build_method
from distillation.distiller import Distiller
from distillation.task import SupervisedTask, TrainingTask
from distillation.teacher import AnswersInBatch, Teacher
from engine.device import Precision, answering, choose_device, choose_workers
from engine.evaluation.decision import Decision
from engine.options import DataOptions, DistillationOptions, RunOptions
from engine.provenance import write_run_file
from engine.segmenter import Segmenter
from engine.training.cache import make_cache
from engine.training.coarse_map import coarse_map_note
from engine.training.decision import decide_best
from engine.training.event_log import event_log
from engine.training.initial_weights import build_initialised
from engine.training.run_folder import RunFolder, has_begun
from engine.training.schedule import Schedule
from engine.training.stored_teacher import open_answers
from engine.training.term_recorder import TermRecorder
from engine.training.trainer import Trainer
from engine.training.validation import Validation
from networks import see_blocks
from utils.across import gather_text, rank, ranks
from utils.errors import UserError
from utils.files import write_json
from utils.fingerprint import fingerprint, fingerprint_weights
from utils.options import command_line, identity
from utils.progress import print_note
from utils.registry import match_name
from utils.seeding import seed_torch

DIGESTS = ("slices", CONTENTS, "unlabelled", "teacher")
"""Of a run's settings, those that stand for data and networks: names of slices, their contents, weights."""


def decide_data(
    data: DataOptions, teacher: Segmenter | None = None, answers: StoredAnswers | None = None
) -> DataOptions:
    """The same with the teacher's dataset, task, size, crop and window, or the defaults, where none was given.

    answers: of a teacher on disk, in its place, which has seen slices of any size and window.
    """
    if teacher is None:
        dataset, task, size, crop, window = "kits", "tumor", Frame.size, data.crop, data.window
        if answers is not None:
            dataset, task = answers.dataset, answers.label_map.name
    else:
        frame = teacher.frame
        dataset, task, size, window = teacher.dataset, teacher.label_map.name, frame.size, teacher.window
        # A crop in pixels belongs to its size; with another size only "none" and the usual share carry over.
        crop = frame.crop if data.size in (None, frame.size) or frame.crop == 0 else None
    return replace(
        data,
        dataset=match_name("dataset", data.dataset or dataset, LAYOUTS),
        task=data.task or task,
        size=size if data.size is None else data.size,
        crop=crop if data.crop is None else data.crop,
        window=data.window or window,
    )


def train(trainer: Trainer) -> Trainer:
    """Print and save the settings and the loss equation, train, choose the decision, and print the best score.

    Of several processes all train, and the first does the rest.
    """
    if not trainer.folder.writes:
        with trainer.repeatably():
            trainer.fit()
        return trainer
    started = time.monotonic()
    announce(trainer)
    with trainer.repeatably():
        trainer.fit()
    best = trainer.progress
    print(f"best validation Dice {best.best:.4f} at step {best.best_step}: {trainer.folder.best}", flush=True)
    if best.best == 0:
        print_note(
            "the best validation Dice is 0, for the network finds nothing of the target; train longer, or look "
            "at the slices with Prep.ipynb"
        )
    with trainer.repeatably():
        decision = decide_best(trainer)
    log_result(trainer, decision)
    write_launch(trainer, time.monotonic() - started)
    return trainer


def write_launch(trainer: Trainer, seconds: float = 0.0) -> None:
    """Add this launch, or the seconds that it took, to run.json."""
    digests = {key: trainer.folder.config.get(key) for key in DIGESTS}
    classes = trainer.segmenter.label_map.classes
    write_run_file(trainer.folder.path, trainer.precision.device, digests, classes, seconds)


def log_result(trainer: Trainer, decision: Decision) -> None:
    """The settings beside the scores of the best network, among TensorBoard's events."""
    progress = trainer.progress
    best: dict[str, float] = next(
        (entry["validation"] for entry in progress.history if entry["step"] == progress.best_step), {}
    )
    scores = {"dice": decision.dice, "argmax_dice": decision.argmax_dice, "step": progress.best_step, **best}
    with event_log(trainer.folder.log, progress.step) as events:
        result = {f"best/{name}": float(score) for name, score in scores.items()}
        events.add_result(progress.step, trainer.folder.config, result)


def make_trainer(run: RunOptions, teacher: Segmenter | None = None, *, with_contents: bool = True) -> Trainer:
    """A trainer at its first step, or, with --resume, where the run was left; nothing is written yet.

    teacher: of the student that `run.distillation` is for, or for `--init teacher`, on the device of the run;
    with_contents: False leaves the digests of the slices, which take a look at each file, out of what the run is.
    UserError if the folder holds a run that is not to be resumed, or that was trained with other settings.
    """
    data, training = run.data, run.training
    begun = has_begun(run.folder, run.name, training.resume)
    if training.resume and not begun:
        print_note(f"{run.folder} holds nothing to resume, so training starts at its first step")
    device = choose_device(training.device)
    slices = open_slices(data.train_data_path, str(data.dataset), str(data.task), "train", data.splits)
    data = replace(data, task=slices.label_map.name)  # in the spelling of the data
    names, val_cases = cases_for_training(slices, data.val_fraction, training.seed)
    unlabelled = find_unlabelled(run, slices, names, val_cases)
    files = [*files_of(slices, names, val_cases), *(unlabelled.files if unlabelled else ())]
    answers = open_answers(run, slices, files)

    # From here on torch draws: the network's first weights, then those of what a method learns.
    seed_torch(training.seed)
    segmenter, init = new_segmenter(run, slices, teacher)
    if training.sync_bn:
        synchronise_batch_norm(segmenter.network, device)
    task = make_task(run, segmenter, teacher, answers).to(device)

    dataset = make_dataset(run, slices, names, segmenter, teacher, unlabelled, answers)
    if isinstance(dataset, BlockDataset):
        slices.refuse_gaps(val_cases)
        files = [*files_of(slices, (), whole_cases(names, val_cases)), *(unlabelled.files if unlabelled else ())]
    per_batch = run.distillation.unlabelled_per_batch if run.distillation else None
    batch_size = max(1, training.batch_size // (segmenter.network.block or 1))
    cache = make_cache(training.cache, dataset, device)
    workers = choose_workers(training.workers)
    loader = TrainingLoader(dataset, batch_size, workers, per_batch, data.mixup, device, cache)
    loader.part, loader.parts = rank(), ranks()
    schedule = Schedule.from_options(training, loader.steps_per_epoch)
    precision = Precision(training.amp, device, segmenter.network)
    segmenter.network.to(memory_format=precision.layout(segmenter.network))
    validation = Validation(segmenter, slices, val_cases, training.batch_size, precision)
    of_answers = answers.contents_fingerprint(files) if answers and with_contents else None
    config = {
        "model": run.model,
        "slices": fingerprint([*names, "", *val_cases]),
        **({CONTENTS: contents_fingerprint(files)} if with_contents else {}),
        **identity(data),
        "window": None if segmenter.window is None else list(segmenter.window),
        **identity(training),
        **({"block": segmenter.network.block} if segmenter.network.block else {}),
        "init": init,
        **asdict(schedule),
        **distillation_config(run.distillation, teacher, of_answers, unlabelled),
    }
    cases = {"train": sorted({case_of(name)[0] for name in names}), "val": val_cases}
    folder = RunFolder(run.folder, replace(run, data=data).name, config, cases, writes=rank() == 0)
    trainer = Trainer(task, segmenter, loader, validation, schedule, precision, folder, training.save_every)
    trainer.deterministic = training.deterministic
    if begun:
        trainer.resume()
    gather_text("ready")  # Before the first rank writes, the others have looked at the folder.
    return trainer


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> None:
    """Batch norm over the whole batch of all processes; UserError where there are not several, on GPUs."""
    if ranks() < 2 or device.type != "cuda":
        raise UserError("--sync_bn: needs several processes on GPUs, which torchrun starts; leave it out")
    nn.SyncBatchNorm.convert_sync_batchnorm(network)


def make_dataset(
    run: RunOptions,
    slices: SliceFolder,
    names: Sequence[str],
    segmenter: Segmenter,
    teacher: Segmenter | None,
    unlabelled: UnlabelledSlices | None,
    answers: StoredAnswers | None,
) -> SliceDataset:
    """What is trained on: slices with what their teacher takes, such as the block around each, or blocks."""
    data = run.data
    arguments = (slices, names, segmenter.frame, data.augment, run.training.seed, segmenter.window, unlabelled)
    if block := segmenter.network.block:
        return BlockDataset(*arguments, block=block, with_masks=True)
    if not run.distillation or teacher is None:
        return SliceDataset(*arguments, answers)
    if block := teacher.network.block:
        return BlockDataset(*arguments, block=block, with_masks=False)
    with_stored = teacher.teacher().needs_stored
    if with_stored and data.mixup:
        raise UserError("--mixup: a teacher of nnU-Net answers for slices as they are stored, not mixed; leave it out")
    return SliceDataset(*arguments, with_stored=with_stored)


def whole_cases(names: Sequence[str], val_cases: Sequence[str]) -> list[str]:
    """Those that decide a result of blocks, which reach any slice of their case."""
    return sorted({case_of(name)[0] for name in names} | {*val_cases})


def new_segmenter(
    run: RunOptions, slices: SliceFolder, teacher: Segmenter | None = None
) -> tuple[Segmenter, str | None]:
    """A network to train, with the label map of its slices and the frame and window of the options, and how it begins.

    teacher: for `--init teacher`. How: as `build_initialised` says.
    """
    network, init = build_initialised(
        run.model, slices.label_map.num_classes, run.training.init, teacher.network if teacher else None
    )
    see_blocks(network, run.model, run.block)
    frame = Frame(Frame.size if run.data.size is None else run.data.size, run.data.crop)
    window = run.data.window or slices.dataset_window
    network.to(memory_format=network.memory_format)
    channel = slices.manifest.channel if slices.manifest else None
    segmenter = Segmenter(
        network,
        run.model,
        slices.dataset,
        slices.label_map,
        frame,
        window,
        channel=channel,
        hounsfield=slices.dataset_window is not None,
    )
    return segmenter, init


def make_task(
    run: RunOptions, student: Segmenter, teacher: Segmenter | None, answers: StoredAnswers | None = None
) -> TrainingTask:
    """What a step does: learn from the masks, or from masks and teacher, which may be `answers` on disk."""
    options = run.distillation
    if options is None:
        return SupervisedTask(student.network)
    source = find_teacher(options, student, teacher, answers)
    method = build_method(options.methods, student.network.channels, source.channels)
    recorder = (
        TermRecorder(run.folder / "terms.jsonl", options.record_terms, writes=rank() == 0)
        if options.record_terms
        else None
    )
    answer_in = answering(run.training.amp, choose_device(run.training.device), student.network)
    return Distiller(student.network, source, method, options.kd_schedule, options.balance, recorder, answer_in)


def find_teacher(
    options: DistillationOptions, student: Segmenter, teacher: Segmenter | None, answers: StoredAnswers | None
) -> Teacher:
    """What a step asks; UserError for a network of another task than the student's."""
    if answers is not None:
        return AnswersInBatch(student.label_map.num_classes)
    if teacher is None:
        raise ValueError("a student that is distilled needs its teacher")
    if (student.label_map, student.dataset) != (teacher.label_map, teacher.dataset):
        raise UserError(
            f"{options.tckpt}: was trained for task {teacher.label_map.name} of {teacher.dataset}, not for task "
            f"{student.label_map.name} of {student.dataset}; give a teacher of this task"
        )
    return teacher.teacher()


def find_unlabelled(
    run: RunOptions, slices: SliceFolder, names: Sequence[str], val_cases: Sequence[str]
) -> UnlabelledSlices | None:
    """Slices to distil on without masks, none of a case that validates or tests."""
    if run.distillation is None or not run.distillation.unlabelled:
        return None
    held_out = held_out_cases(slices, run.data.test_data_path) | set(val_cases)
    return unlabelled_slices(run.distillation.unlabelled, slices, names, held_out)


def distillation_config(
    options: DistillationOptions | None,
    teacher: Segmenter | None,
    answers: str | None,
    unlabelled: UnlabelledSlices | None,
) -> dict[str, Any]:
    """What decides a student's result besides data and training; the methods with all their options.

    answers: the digest of a teacher's answers on disk.
    """
    if options is None:
        return {}
    block = teacher.network.block if teacher else 0
    return {
        "kd": [method.definition() for method in options.methods],
        **identity(options),
        "unlabelled": None if unlabelled is None else fingerprint(unlabelled.names),
        "teacher": fingerprint_weights(teacher.network) if teacher else answers,
        **({"block": block} if block else {}),
    }


def announce(trainer: Trainer) -> None:
    """Print the settings and keep them in config.json."""
    slices, unlabelled = trainer.validation.slices, trainer.loader.dataset.unlabelled
    about = {
        "command": command_line(),
        "loss": trainer.task.equation(),
        "training slices": len(trainer.loader.dataset),
        **({"unlabelled slices": str(unlabelled)} if unlabelled else {}),
        "validation cases": len(trainer.folder.cases["val"]),
        "slices from": str(slices.folder),
    }
    in_force = {"amp": trainer.precision.name, "device": trainer.precision.device}
    lines = {
        f"fingerprint of {key}" if key in DIGESTS and value else key: value
        for key, value in {**trainer.folder.config, **in_force, **about}.items()
    }
    width = max(map(len, lines))
    for key, value in lines.items():
        print(f"{key:>{width}}  {value}", flush=True)
    write_json(trainer.folder.path / "config.json", {**trainer.folder.config, **about})
    write_launch(trainer)
    frame = trainer.segmenter.frame
    if frame.size and frame.crop and frame.crop > frame.size:
        print_note(
            f"--crop {frame.crop} is larger than --size {frame.size}, so that every slice is padded; "
            "--crop 0 takes the full slices"
        )
    if note := coarse_map_note(trainer.segmenter):
        print(note, file=sys.stderr)
