"""From parsed options to a finished run: what train.py and train_kd.py share."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datasets.archive import Archive, case_of
from datasets.dataset import make_loader
from datasets.frame import Frame
from datasets.splits import split_cases
from datasets.unlabelled import UnlabelledSlices, held_out_cases, unlabelled_slices
from distillation.tasks import Distiller, TrainingTask
from engine.device import Precision, choose_device, choose_workers
from engine.evaluate import archived_cases, mean_dice, score_case, summarise
from engine.fit import Schedule, Trainer
from engine.metrics import OVERLAP
from engine.overlay import PREDICTION_COLOUR, TRUTH_COLOUR, draw_contours, grey_picture, montage
from engine.recorder import TermRecorder
from engine.segmenter import Segmenter
from networks import build
from utils.errors import UserError
from utils.files import write_json
from utils.progress import progress
from utils.seeding import seed_torch

# Options that say where and how fast, not what: a run may be resumed with others.
INCIDENTAL = {
    "resume", "device", "workers", "mode", "checkpoint_path", "train_data_path", "test_data_path",
    "loss_type", "tckpt", "unlabelled", "record_terms",
}  # fmt: skip
# Settings that are digests, which alone would look like data.
FINGERPRINTS = ("slices", "unlabelled", "teacher")
LABEL_WIDTH = len("fingerprint of unlabelled")


def open_archive(path: Path | None, dataset: str, task: str, split: str) -> Archive:
    """The slices at `path`, or in the repository's data/<dataset>, or in the folder `split` in there."""
    default = Path(__file__).resolve().parent.parent / "data" / dataset
    return Archive.open(path or default, dataset, task, split)


def new_segmenter(args: argparse.Namespace, model: str, archive: Archive) -> Segmenter:
    """A network to train, with the archive's task and window and the frame that the options ask for."""
    seed_torch(args.seed)
    pretrained: bool | Path = args.pretrained == "imagenet"
    if args.pretrained and not pretrained:
        pretrained = Path(args.pretrained)
    network = build(model, archive.task.num_classes, pretrained).to(memory_format=torch.channels_last)
    frame = Frame(Frame.size if args.size is None else args.size, args.crop)
    window = archive.dataset_window if args.window is None else (args.window[0], args.window[1])
    if window is not None and window[0] >= window[1]:
        raise UserError(f"--window {window[0]:g} {window[1]:g}: the first number must be the lower one")
    return Segmenter(network, model, archive.dataset, archive.task, frame, window)


def cases_for_training(archive: Archive, val_fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """Slice files to train on and cases to validate on, never of the same case; UserError without a target in these."""
    names, val_cases = divide(archive, val_fraction, seed)
    if not archive.val_cases:
        print(
            f"{archive.folder}: no validation cases were set apart when the slices were cut; {len(val_cases)} of "
            f"{len(archive.cases)} cases validate now, on the slices that are there",
            flush=True,
        )
    _check_target(archive, val_cases)
    return names, val_cases


def divide(archive: Archive, val_fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """The same by the names alone: no file is read."""
    if archive.val_cases:
        return archive.train, archive.val_cases
    split = split_cases(list(archive.cases), seed, test_fraction=0, val_fraction=val_fraction)
    if not split.val:
        raise UserError(
            f"{archive.folder}: {len(archive.cases)} case(s) leave none to validate on; "
            "give more cases or a larger --val_fraction"
        )
    held_out = {name for case in split.val for name in archive.cases[case]}
    return [name for name in archive.train if name not in held_out], list(split.val)


def _check_target(archive: Archive, cases: Sequence[str]) -> None:
    """Without the target in any of them, no checkpoint could be told from another."""
    names = (name for case in cases for name in archive.cases[case])
    if not any(archive.task.target(archive.read(name)[1]).any() for name in names):
        raise UserError(
            f"{archive.folder}: no validation case has the target of task {archive.task.name}; "
            "cut the slices with another --seed or a larger --val_fraction"
        )


def train(args: argparse.Namespace, task: TrainingTask, segmenter: Segmenter, archive: Archive, name: str) -> Trainer:
    """Train `task` as the options say; prints and saves the configuration and the loss equation."""
    folder: Path = args.checkpoint_path
    begun = (folder / "last.ckpt").exists()
    if begun and not args.resume:
        raise UserError(f"{folder}: holds a run already; add --resume, or give another --checkpoint_path")
    if args.resume and not begun:
        raise UserError(f"nothing to resume in {folder}; leave --resume out")
    trainer = make_trainer(args, task, segmenter, archive, name)
    if args.resume:
        trainer.resume()
    if isinstance(task, Distiller) and (every := getattr(args, "record_terms", 0)):
        task.observe = TermRecorder(folder / "terms.jsonl", every, trainer.steps_done)
    about = {
        "command": " ".join(["python", *sys.argv]),
        "loss": task.equation(),
        "training slices": trainer.batches.n,
        "validation cases": len(trainer.cases["val"]),
        "slices from": str(archive.folder),
    }
    became = {"amp": trainer.precision.name, "device": trainer.precision.device}
    for key, value in {**trainer.config, **became, **about}.items():
        print(_line(f"fingerprint of {key}" if key in FINGERPRINTS and value else key, value), flush=True)
    write_json(folder / "config.json", {**trainer.config, **about})
    frame = segmenter.frame
    if frame.size and frame.crop and frame.crop > frame.size:
        print(
            f"note: --crop {frame.crop} is larger than --size {frame.size}, so that every slice is padded; "
            "--crop 0 takes whole slices",
            file=sys.stderr,
        )
    trainer.fit()
    best = trainer.progress
    told = trainer.schedule.told(best.best_epoch + 1)
    print(f"best validation Dice {best.best:.4f} at {told}: {folder / 'best.ckpt'}", flush=True)
    if best.best == 0:
        print(
            "note: the best validation Dice is 0, for the network finds nothing of the target; train longer, or look "
            "at the slices with Prep.ipynb",
            file=sys.stderr,
        )
    return trainer


def _line(key: str, value: object) -> str:
    return f"{key:>{LABEL_WIDTH}}  {value}"


def make_trainer(
    args: argparse.Namespace, task: TrainingTask, segmenter: Segmenter, archive: Archive, name: str
) -> Trainer:
    """A trainer as the options say, at its first step; nothing is written yet."""
    folder: Path = args.checkpoint_path
    device = choose_device(args.device)
    precision = Precision(args.amp, device)
    schedule = Schedule(args.epochs, args.lr, args.patience, choose_val_every(args), args.steps)
    names, val_cases = cases_for_training(archive, args.val_fraction, args.seed)
    unlabelled = _unlabelled(args, archive, names, val_cases)
    config = _settings(args, segmenter) | {
        "slices": fingerprint([*names, "", *val_cases]),
        "unlabelled": None if unlabelled is None else fingerprint(unlabelled.names),
    }
    loader, batches = make_loader(
        archive, names, segmenter.frame, args.augment, args.batch_size, args.seed,
        workers=choose_workers(args.workers), window=segmenter.window,
        unlabelled=unlabelled, unlabelled_per_batch=getattr(args, "unlabelled_per_batch", None),
    )  # fmt: skip

    def validate() -> tuple[float, dict[str, Any]]:
        cases = archived_cases(archive, val_cases, segmenter.window)
        bar = progress(cases, "validating", total=len(val_cases), unit="case")
        # Overlap is all that picks a checkpoint; without a spacing the slow distances are left out.
        flat = (replace(case, spacing=None) for case in bar)
        with precision.autocast():
            rows = [row for case in flat for row in score_case(segmenter, case, args.batch_size)]
        scores = {
            f"{region}/{metric}": values[metric]["mean"]
            for region, values in summarise(rows, (*OVERLAP, "crop_lost")).items()
            for metric in values
            if values[metric]["mean"] is not None
        }
        return mean_dice(rows), scores

    return Trainer(
        task.to(device), segmenter, loader, batches, validate, schedule, precision, folder, name, config,
        cases={"train": sorted({case_of(name)[0] for name in names}), "val": val_cases},
        pictures=ContourPictures(segmenter, archive, val_cases),
    )  # fmt: skip


def _unlabelled(
    args: argparse.Namespace, archive: Archive, names: Sequence[str], val_cases: Sequence[str]
) -> UnlabelledSlices | None:
    """Slices to distil on without masks, none of a case that validates or tests; train.py has no such option."""
    if not getattr(args, "unlabelled", None):
        return None
    held_out = held_out_cases(archive, args.test_data_path) | set(val_cases)
    found = unlabelled_slices(args.unlabelled, archive, names, held_out)
    print(_line("unlabelled slices", found), flush=True)
    return found


def choose_val_every(args: argparse.Namespace) -> int:
    """Epochs, or steps, between validations: as asked, else every epoch, or four times in all."""
    default = 1 if args.steps is None else -(-args.steps // 4)
    return int(args.val_every or default)


def _settings(args: argparse.Namespace, segmenter: Segmenter) -> dict[str, Any]:
    """The options that decide the result, in plain types."""
    settings = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in vars(args).items()
        if key not in INCIDENTAL
    }
    settings |= {
        "dataset": segmenter.dataset,
        "task": segmenter.task.name,
        "frame": segmenter.frame.to_dict(),
        "window": None if segmenter.window is None else list(segmenter.window),
        "val_every": choose_val_every(args),
    }
    for replaced in ("size", "crop", "steps" if args.steps is None else "epochs"):
        del settings[replaced]
    return settings


def fingerprint(parts: Iterable[str]) -> str:
    """A short digest: two runs of the same parts have the same."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def fingerprint_weights(network: nn.Module) -> str:
    """The digest of all weights and statistics: the file they came from may move."""
    digest = hashlib.sha256()
    for value in network.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


class ContourPictures:
    """The largest target slice of the first cases, with truth and prediction drawn."""

    def __init__(self, segmenter: Segmenter, archive: Archive, cases: Sequence[str], most: int = 4) -> None:
        self.segmenter = segmenter
        self.slices = []
        for case in archived_cases(archive, cases[:most], segmenter.window):
            truth = segmenter.task.encode(case.label)
            index = int((truth > 0).sum(axis=(1, 2)).argmax())
            self.slices.append((case.image[index : index + 1].copy(), truth[index].copy(), case.window))

    def __call__(self) -> torch.Tensor:
        """[3, H, W] in 0..1."""
        pictures = []
        for image, truth, window in self.slices:
            picture = draw_contours(grey_picture(image[0], window), truth, TRUTH_COLOUR)
            predicted = self.segmenter.segment(image, window)[0]
            pictures.append(draw_contours(picture, predicted, PREDICTION_COLOUR))
        return torch.from_numpy(montage(pictures, columns=2)).permute(2, 0, 1) / 255
