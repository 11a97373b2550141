"""Cut, train, kill and resume at random until the time is over, and see that nothing is lost.

    python scripts/soak.py --minutes 10

Each round makes phantoms, cuts them twice, once undisturbed and once with faults, and trains a network or a distilled
student twice in the same way (scripts/check_resume.py). Both slices and both trainings must be equal bit for bit, and
no unfinished file may be left. A fault is a SIGKILL of all processes at a moment drawn at random, a SIGTERM, or a disk
that is full. The rounds are drawn from the seed; how far a process came when it was killed differs.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import _root  # noqa: F401
from _faults import FAULTS, Process, empty_folder, preload
from check_resume import SUPERVISED, check, make_teacher, training_words

from engine.provenance import RUN_FILE
from utils.errors import UserError, run
from utils.files import UNFINISHED
from utils.numbers import NonNegativeInt, Positive
from utils.options import Parser, option

METHODS = (SUPERVISED, "hlfd", "cirkd", "mgd", "ofd", "hlfd/kd:0.5", "hlfd_published")
CUTTING_FAULTS, TRAINING_FAULTS, STEPS = 3, 3, 12


@dataclass(frozen=True)
class SoakOptions:
    """soak"""

    minutes: Positive = option(10.0, "a round that has begun is ended")
    seed: NonNegativeInt = option(0, "of the rounds")
    outpath: Path | None = option(None, "folder to work in (default: a temporary one)")


def cut(raw: Path, out: Path, faults: list[str], draws: random.Random, pace: float) -> list[str]:
    """Cut slices, with faults within `pace` seconds of each start; those that were met. UserError for a bad end."""
    log = out.with_name(f"{out.name}.log")
    words = ("scripts/SliceMaker.py", "--inpath", raw, "--outpath", out, "--workers", draws.choice((1, 2)))
    split = ("--val_fraction", 0.2, "--test_fraction", 0.2)
    met = []
    for fault in faults:
        full = fault == "full disk"
        process = Process(log, *words, *split, largest_file=draws.choice((3000, 5000)) if full else None)
        moment = time.monotonic() + draws.uniform(0, pace)
        process.wait(until=lambda: not full and time.monotonic() > moment)  # noqa: B023
        process.kill(fault)
        if process.status == 0:
            continue
        process.refuse_bad_end(fault)
        met.append(fault)
    Process(log, *words, *split).succeed()
    return met


def refuse_different_files(one: Path, other: Path) -> None:
    """UserError if the folders do not hold the same files, byte for byte, besides the list of launches and locks.

    Whoever is killed leaves the file of its lock, which holds nobody up.
    """
    files = [{path.relative_to(folder): path for path in folder.rglob("*") if is_kept(path)} for folder in (one, other)]
    if lost := sorted(files[0].keys() ^ files[1].keys()):
        raise UserError(f"{other}: {len(lost)} files are in it or in {one} alone ({lost[0]}, ...)")
    for name, path in files[0].items():
        if path.read_bytes() != files[1][name].read_bytes():
            raise UserError(f"{files[1][name]}: differs from {path}")


def is_kept(path: Path) -> bool:
    return path.is_file() and path.name != RUN_FILE and path.suffix != ".lock"


def soak(folder: Path, draws: random.Random, seed: int) -> tuple[str, list[str]]:
    """One round: the method that was trained, and the faults that were met. UserError if anything was lost."""
    raw = folder / "raw"
    small = ("--size", 48, "--slices", 5, 7, "--cases", draws.randint(5, 7), "--seed", seed)
    Process(folder / "data.log", "scripts/make_phantom.py", "--outpath", raw, *small).succeed()
    started = time.monotonic()
    cut(raw, folder / "slices", [], draws, 0)
    faults = draws.choices(list(FAULTS), k=CUTTING_FAULTS)
    met = cut(raw, folder / "slices_disturbed", faults, draws, time.monotonic() - started)
    refuse_different_files(folder / "slices", folder / "slices_disturbed")

    method = draws.choice(METHODS)
    slices = folder / "slices_disturbed"
    words = training_words(method, slices, make_teacher(folder, slices), STEPS)
    met += check(words, folder, TRAINING_FAULTS, draws).faults
    if left := next(folder.rglob(f"{UNFINISHED}*"), None):
        raise UserError(f"{left}: was left by a process that was killed")
    return method, met


def main() -> None:
    (options,) = Parser(__doc__).read(SoakOptions)
    preload()

    end = time.monotonic() + 60 * options.minutes
    with empty_folder(options.outpath) as out:
        number, met = 0, Counter[str]()
        while number == 0 or time.monotonic() < end:
            folder = out / f"round_{number}"
            folder.mkdir(parents=True)
            method, faults = soak(folder, random.Random(f"{options.seed} {number}"), number)
            met.update(faults)
            number += 1
            print(f"round {number}: {method}, {len(faults)} faults, nothing lost", flush=True)
    print(f"{number} rounds, {met.total()} faults ({', '.join(f'{met[f]} {f}' for f in FAULTS)}): nothing lost")


if __name__ == "__main__":
    run(main)
