r"""Which method should I use for my teacher and my student, and is the gain real?

    python scripts/benchmark.py --teacher checkpoints/teacher/best.ckpt --students resnet_18 enet \
        --methods hlfd kd cwd,layers=e5 kd/at:0.5 --seeds 0 1 2 --train_data_path data/kits --outpath runs/bench

Every student is trained for every seed alone, alone for longer (twice the steps with the preset cpu, else as long as
the dearest method takes), and with every row of methods; each best.ckpt (picked on the validation cases) is scored on
the test cases, on whole volumes and by the published slice protocol. A row is a method as in train_kd.py's --kd;
several act together joined by `/`, as in kd/at:0.5. `/balance=1`, `/schedule=decay` and, with --unlabelled DIR,
`/unlabelled` act as train_kd.py's options do. Task, frame and window are the teacher's; the number of steps, the
learning rate, which falls with every step, and the augmentation are the same for every row.

Left in OUTPATH: results.md, index.html, results.csv (a line for each run), cases.csv (a line for each case),
costs.json, and a folder for each run with best.ckpt, history.json, train.log and result.json.

The same command goes on where it stopped. With further students, methods and seeds in it, only these are trained; the
tables show what the command names. Other settings or data need another OUTPATH. On a CPU, the same command gives the
same scores; where the length of "undistilled, longer" is measured, it differs from launch to launch. With --report and
--against ROW the tables of finished runs are written anew, with the gains over another row.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import _root  # noqa: F401

from engine.options import Parser, device_option, real, whole
from utils.cores import usable_cores
from utils.errors import UserError, run

if TYPE_CHECKING:
    from engine.benchmark.runs import Run

PRESETS: dict[str, dict[str, object]] = {
    "cpu": {"steps": 250, "batch_size": 4, "lr": 1e-3, "amp": "off"},
    "full": {"epochs": 120, "val_every": 4, "batch_size": 8, "lr": 1e-3, "amp": "auto"},
}
LONGER_OF_PRESET = {"cpu": 2.0}  # given, so that two launches give the same table; elsewhere it is measured
LENGTHS = ("steps", "epochs")
PASSED_ON = ("val_every", "batch_size", "lr", "amp", "augment", "val_fraction", "workers", "device")


def options() -> Parser:
    parser = Parser(__doc__)
    add = parser.add_argument_group("what to compare").add_argument
    add("--teacher", type=Path, required=True, help="the teacher's checkpoint")
    add("--students", nargs="+", default=["resnet_18"], help="networks (default: resnet_18)")
    add("--methods", nargs="*", default=["hlfd"], metavar="METHOD[/METHOD...]", help="rows (default: hlfd)")
    add("--seeds", type=whole(0), nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    add(
        "--longer", type=real(0), metavar="R",
        help="length of the longer row; 0: no such row (default: 2 with the preset cpu, else the dearest method's)",
    )  # fmt: skip
    add("--against", default="undistilled", metavar="ROW", help="what gains are over (default: undistilled)")
    add("--train_data_path", type=Path, help="slices that SliceMaker wrote (default: data/<dataset>)")
    add("--test_data_path", type=Path, help="slices to test on (default: test in the same folder)")
    add("--unlabelled", type=Path, nargs="+", default=[], metavar="DIR", help="slices for rows like kd/unlabelled")
    add("--validation_only", action="store_true", help="score the validation cases: for choosing recipes")
    add("--no_distances", action="store_true", help="leave HD95 out, about a second a case")
    add("--outpath", type=Path, default=Path("runs/benchmark"), help="default: runs/benchmark")
    add("--report", action="store_true", help="train nothing: tables of the runs in this command that are finished")
    add = parser.add_argument_group("training").add_argument
    add(
        "--preset", choices=list(PRESETS), default="cpu",
        help="cpu (default): 250 steps of 4 slices, four validations, amp off (bf16 is faster on CPUs that have it), "
        "meant for teachers of small slices; full: 120 epochs in batches of 8, a validation every 4, amp auto; both lr "
        "1e-3; flags override it",
    )  # fmt: skip
    add("--steps", type=whole(1), help="optimiser steps a run")
    add("--epochs", type=whole(1), help="epochs a run, instead of steps")
    add("--val_every", type=whole(1), help="steps, or epochs, from one validation to the next")
    add("--batch_size", type=whole(1), help="slices in a batch")
    add("--lr", type=real(above=0), help="Adam's first learning rate")
    add("--amp", choices=["auto", "off", "bf16", "fp16"], help="mixed precision")
    add("--augment", choices=["none", "paper", "strong"], default="paper", help="default: paper")
    add("--val_fraction", type=real(0, below=1), help="cases to validate on, where none were set apart")
    add("--pretrained", action="store_true", help="students begin with ImageNet weights; not all have some")
    add("--jobs", type=whole(1), default=1, help="runs at once; on a CPU each then has one thread (default: 1)")
    add("--workers", type=whole(0), help="loading processes of a run (default: by the number of cores)")
    device_option(parser)
    return parser


def training_words(args: argparse.Namespace) -> list[str]:
    """The options of train.py that the preset and the flags mean."""
    chosen = dict(PRESETS[args.preset])
    if args.steps:
        # A preset's val_every counts epochs.
        chosen = {name: value for name, value in chosen.items() if name not in ("epochs", "val_every")}
    if args.epochs:
        chosen.pop("steps", None)
    for name in (*LENGTHS, *PASSED_ON):
        if getattr(args, name) is not None:
            chosen[name] = getattr(args, name)
    if args.jobs > 1 and args.workers is None:
        chosen["workers"] = min(8, usable_cores() // args.jobs - 1) if usable_cores() > args.jobs else 0
    words = [str(word) for name, value in chosen.items() for word in (f"--{name}", value)]
    return [*words, "--pretrained"] if args.pretrained else words


def main() -> None:
    args = options().parse_args()
    # Runs are told one by one when they end; bars of several at once would only mix.
    os.environ["TQDM_DISABLE"] = "1"
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    from engine.benchmark.costs import measure
    from engine.benchmark.report import write_report
    from engine.benchmark.runs import LONGER, UNDISTILLED, Benchmark, distinct, is_finished, plan, read_row
    from engine.benchmark.train_and_score import identify, identify_unlabelled, perform, score_teacher
    from engine.device import choose_device
    from networks import network_name
    from utils.files import read_json

    students = list(dict.fromkeys(network_name(name) for name in args.students))
    rows = [read_row(word) for word in args.methods]
    if any(row.unlabelled for row in rows) and not args.unlabelled:
        raise UserError("--methods: a row with /unlabelled needs slices to distil on without masks: --unlabelled DIR")
    against = args.against if args.against in (UNDISTILLED, LONGER) else read_row(args.against).name
    if against not in (UNDISTILLED, LONGER, *(row.name for row in rows)):
        raise UserError(f"--against {args.against}: is no row of this benchmark; name it in --methods too")
    data = (args.train_data_path, args.test_data_path)
    identity = identify(args.teacher, *data, args.validation_only)
    rows, same = distinct(rows, students, identity)
    for name, first in same.items():
        print(f"note: {name} is {first}, which has a row already", file=sys.stderr)
    against = same.get(against, against)
    benchmark = Benchmark(
        args.teacher, args.outpath, *data, tuple(training_words(args)), identity,
        args.validation_only, not args.no_distances,
        threads=1 if args.jobs > 1 and choose_device(args.device).type == "cpu" else 0,
        unlabelled=tuple(args.unlabelled),
        unlabelled_identity=identify_unlabelled(args.unlabelled, *data, identity) if args.unlabelled else None,
    )  # fmt: skip
    known = args.outpath / "costs.json"
    if args.report and not known.exists():
        raise UserError(f"{args.outpath}: holds no benchmark yet; give the same command without --report first")
    asked = LONGER_OF_PRESET.get(args.preset) if args.longer is None else args.longer
    costs = read_json(known) if args.report else measure(benchmark, students, rows, asked)
    longer = {} if args.longer == 0 else {name: costs["longer"][name] for name in students if name in costs["longer"]}
    runs = plan(benchmark, students, rows, sorted(set(args.seeds)), longer)
    waiting = [each for each in runs if not is_finished(benchmark, each, anywhere=args.report)]
    print(f"{len(runs)} runs, {len(runs) - len(waiting)} of them finished before: {args.outpath}", flush=True)
    teacher = score_teacher(benchmark, args.device)
    failures = [] if args.report else train_all(waiting, partial(perform, benchmark), args.jobs)
    if len(failures) < len(runs):
        write_report(benchmark, runs, costs, teacher, against)
    if failures:
        told = "; ".join(dict.fromkeys(failures))
        raise UserError(f"{len(failures)} of {len(runs)} runs failed and are not in the tables: {told}")


def train_all(waiting: list[Run], perform: Callable[[Run], None], jobs: int) -> list[str]:
    """What went wrong in each run that failed; prints a line for each run that ends."""
    from engine.benchmark.workers import run_all
    from utils.files import read_json

    failures = []
    started = monotonic()
    outcomes = run_all(waiting, perform, jobs)
    try:
        for done, (each, failure) in enumerate(outcomes, 1):
            name = f"{each.student} {each.row.name}"
            if failure:
                failures.append(f"{name}: {failure}")
                told = f"FAILED: {failure}"
            else:
                minutes = (monotonic() - started) / done * (len(waiting) - done) / 60
                told = f"Dice {read_json(each.folder / 'result.json')['dice']:.4f}, about {minutes:.0f} min left"
            print(f"[{done}/{len(waiting)}] {name}, seed {each.seed}: {told}", flush=True)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on where it stopped", file=sys.stderr)
        raise
    finally:
        outcomes.close()
    return failures


if __name__ == "__main__":
    run(main)
