"""From parsed options to a finished run: what train.py and train_kd.py share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from datasets.frame import Frame
from datasets.labelled_cases import cases_in_slices
from datasets.loader import make_loader
from datasets.slices.slice_folder import SliceFolder, case_of
from datasets.slices.training_split import cases_for_training
from datasets.slices.unlabelled import UnlabelledSlices, held_out_cases, unlabelled_slices
from distillation.task import Distiller, TrainingTask
from engine.contours import PREDICTION_COLOUR, TRUTH_COLOUR, draw_contours, grey_picture, montage
from engine.device import Precision, choose_device, choose_workers
from engine.evaluation.evaluate import mean_dice, score_case, summarise
from engine.evaluation.metrics import OVERLAP
from engine.segmenter import Segmenter
from engine.training.term_recorder import TermRecorder
from engine.training.trainer import Schedule, Trainer
from networks import build
from utils.errors import UserError
from utils.files import write_json
from utils.fingerprint import fingerprint
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


def new_segmenter(args: argparse.Namespace, model: str, slices: SliceFolder) -> Segmenter:
    """A network to train, with the archive's task and window and the frame that the options ask for."""
    seed_torch(args.seed)
    pretrained: bool | Path = args.pretrained == "imagenet"
    if args.pretrained and not pretrained:
        pretrained = Path(args.pretrained)
    network = build(model, slices.label_map.num_classes, pretrained).to(memory_format=torch.channels_last)
    frame = Frame(Frame.size if args.size is None else args.size, args.crop)
    window = slices.dataset_window if args.window is None else (args.window[0], args.window[1])
    if window is not None and window[0] >= window[1]:
        raise UserError(f"--window {window[0]:g} {window[1]:g}: the first number must be the lower one")
    return Segmenter(network, model, slices.dataset, slices.label_map, frame, window)


def train(
    args: argparse.Namespace, task: TrainingTask, segmenter: Segmenter, slices: SliceFolder, name: str
) -> Trainer:
    """Train `task` as the options say; prints and saves the configuration and the loss equation."""
    folder: Path = args.checkpoint_path
    begun = (folder / "last.ckpt").exists()
    if begun and not args.resume:
        raise UserError(f"{folder}: holds a run already; add --resume, or give another --checkpoint_path")
    if args.resume and not begun:
        raise UserError(f"nothing to resume in {folder}; leave --resume out")
    trainer = make_trainer(args, task, segmenter, slices, name)
    if args.resume:
        trainer.resume()
    if isinstance(task, Distiller) and (every := getattr(args, "record_terms", 0)):
        task.observe = TermRecorder(folder / "terms.jsonl", every, trainer.steps_done)
    about = {
        "command": " ".join(["python", *sys.argv]),
        "loss": task.equation(),
        "training slices": trainer.batches.n,
        "validation cases": len(trainer.cases["val"]),
        "slices from": str(slices.folder),
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
    args: argparse.Namespace, task: TrainingTask, segmenter: Segmenter, slices: SliceFolder, name: str
) -> Trainer:
    """A trainer as the options say, at its first step; nothing is written yet."""
    folder: Path = args.checkpoint_path
    device = choose_device(args.device)
    precision = Precision(args.amp, device)
    schedule = Schedule(args.epochs, args.lr, args.patience, choose_val_every(args), args.steps)
    names, val_cases = cases_for_training(slices, args.val_fraction, args.seed)
    unlabelled = _unlabelled(args, slices, names, val_cases)
    config = _settings(args, segmenter) | {
        "slices": fingerprint([*names, "", *val_cases]),
        "unlabelled": None if unlabelled is None else fingerprint(unlabelled.names),
    }
    loader, batches = make_loader(
        slices, names, segmenter.frame, args.augment, args.batch_size, args.seed,
        workers=choose_workers(args.workers), window=segmenter.window,
        unlabelled=unlabelled, unlabelled_per_batch=getattr(args, "unlabelled_per_batch", None),
    )  # fmt: skip

    def validate() -> tuple[float, dict[str, Any]]:
        cases = cases_in_slices(slices, val_cases, segmenter.window)
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
        pictures=ContourPictures(segmenter, slices, val_cases),
    )  # fmt: skip


def _unlabelled(
    args: argparse.Namespace, slices: SliceFolder, names: Sequence[str], val_cases: Sequence[str]
) -> UnlabelledSlices | None:
    """Slices to distil on without masks, none of a case that validates or tests; train.py has no such option."""
    if not getattr(args, "unlabelled", None):
        return None
    held_out = held_out_cases(slices, args.test_data_path) | set(val_cases)
    found = unlabelled_slices(args.unlabelled, slices, names, held_out)
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
        "task": segmenter.label_map.name,
        "frame": segmenter.frame.to_dict(),
        "window": None if segmenter.window is None else list(segmenter.window),
        "val_every": choose_val_every(args),
    }
    for replaced in ("size", "crop", "steps" if args.steps is None else "epochs"):
        del settings[replaced]
    return settings


class ContourPictures:
    """The largest target slice of the first cases, with truth and prediction drawn."""

    def __init__(self, segmenter: Segmenter, slices: SliceFolder, cases: Sequence[str], most: int = 4) -> None:
        self.segmenter = segmenter
        self.slices = []
        for case in cases_in_slices(slices, cases[:most], segmenter.window):
            truth = segmenter.label_map.encode(case.label)
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
