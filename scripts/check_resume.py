"""Kill trainings at random moments, resume them, and compare them bit for bit with ones that nothing disturbed.

    python scripts/check_resume.py --kills 20
    python scripts/check_resume.py --kills 5 --trainings cirkd mgd hlfd/kd:2 --outpath runs/resume --seed 3

Each training is a small one on phantoms on the CPU, of train.py (`supervised`) or of train_kd.py with a method; several
act together joined by `/`. At a moment drawn at random it gets SIGKILL, with all processes that it has started, or
SIGTERM, or it finds the disk full; then the same command with --resume continues it. At the end all of its files but
TensorBoard's must equal those of an undisturbed training: weights, optimisers, random state, scores, decision.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import _root  # noqa: F401
from _faults import FAULTS, Process, Training, empty_folder, preload, refuse_differences

from utils.errors import run
from utils.numbers import NonNegativeInt, PositiveInt
from utils.options import Parser, option

SUPERVISED = "supervised"
STEPS_PER_KILL, SAVE_EVERY = 4, 2
SMALL = ("--size", 32, "--crop", 0, "--batch_size", 4, "--device", "cpu", "--workers", 0, "--amp", "off")


@dataclass(frozen=True)
class CheckOptions:
    """check"""

    kills: PositiveInt = option(20, "faults that each training meets")
    trainings: tuple[str, ...] = option(
        (SUPERVISED, "hlfd", "cirkd", "skd_holistic"), "what is trained", metavar=f"{SUPERVISED}|METHOD"
    )
    seed: NonNegativeInt = option(0, "of the moments")
    outpath: Path | None = option(None, "folder to work in (default: a temporary one)")


def make_slices(folder: Path, seed: int = 0, cases: int = 6) -> Path:
    """Phantoms and their slices."""
    raw, slices, log = folder / "raw", folder / "slices", folder / "data.log"
    small = ("--size", 48, "--slices", 6, 7, "--cases", cases, "--seed", seed)
    Process(log, "scripts/make_phantom.py", "--outpath", raw, *small).succeed()
    where = ("--inpath", raw, "--outpath", slices, "--workers", 1)
    Process(log, "scripts/SliceMaker.py", *where, "--val_fraction", 0.2).succeed()
    return slices


def make_teacher(folder: Path, slices: Path) -> Path:
    """A checkpoint; that it knows nothing is no matter here."""
    words = ("--model", "enet", "--train_data_path", slices, *SMALL, "--steps", 2)
    Process(folder / "teacher.log", "train.py", *words, "--checkpoint_path", folder / "teacher").succeed()
    return folder / "teacher" / "best.ckpt"


def training_words(method: str, slices: Path, teacher: Path | None, steps: int) -> tuple[object, ...]:
    """The script and its options for a training; method: as in `CheckOptions`."""
    length = ("--steps", steps, "--val_every", max(1, steps // 4), "--save_every", SAVE_EVERY)
    data = ("--train_data_path", slices, *SMALL, *length)
    if method == SUPERVISED:
        return ("train.py", "--model", "malunet", *data)
    record = ("--record_terms", 3)
    return ("train_kd.py", "--tckpt", teacher, "--smodel", "malunet", "--kd", *method.split("/"), *data, *record)


def check(words: tuple[object, ...], folder: Path, kills: int, draws: random.Random) -> Training:
    """Train undisturbed, and with `kills` faults; UserError if the two differ, or anything was lost in between."""
    undisturbed = Training(words, folder / "undisturbed", draws)
    process = undisturbed.start()
    process.succeed()
    pace = (time.monotonic() - process.started) * SAVE_EVERY / undisturbed.step()
    disturbed = Training(words, folder / "disturbed", draws)
    while len(disturbed.faults) < kills and disturbed.meet(draws.choices(list(FAULTS), (6, 3, 1))[0], pace):
        pass
    disturbed.start().succeed()
    refuse_differences(undisturbed.folder, disturbed.folder)
    return disturbed


def main() -> None:
    (options,) = Parser(__doc__).read(CheckOptions)
    preload()

    with empty_folder(options.outpath) as out:
        slices = make_slices(out)
        teacher = make_teacher(out, slices) if set(options.trainings) - {SUPERVISED} else None
        steps = max(8, STEPS_PER_KILL * options.kills)
        for method in options.trainings:
            draws = random.Random(f"{options.seed} {method}")
            words = training_words(method, slices, teacher, steps)
            folder = out / method.replace("/", "_")
            folder.mkdir()
            met = check(words, folder, options.kills, draws)
            counts = Counter(met.faults)
            faults = ", ".join(f"{counts[fault]} {fault}" for fault in FAULTS if counts[fault])
            at = " ".join("-" if step < 0 else str(step) for step in met.steps)
            print(f"{method}: {steps} steps, {len(met.faults)} faults ({faults}), equal bit for bit", flush=True)
            print(f"  last.ckpt after each fault at step {at}", flush=True)


if __name__ == "__main__":
    run(main)
