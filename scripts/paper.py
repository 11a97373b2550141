"""The paper's experiment: RAUNet, ResNet-18 alone, and ResNet-18 with each of the six published losses.

    python scripts/paper.py --inpath data/raw/kits19 --dataset kits --outpath runs/paper_kits --estimate
    python scripts/paper.py --inpath data/raw/kits19 --dataset kits --outpath runs/paper_kits
    python scripts/paper.py --inpath data/raw/lits --dataset lits --outpath runs/paper_lits --seeds 0 1 2 3 4

It cuts slices, after it has printed the disk that they will take; prints the hours that the trainings will take on
this device; trains and scores; and writes OUTPATH/paper.md and paper.csv: each row by the published protocol and by
ours, with a notice of what differs from the paper. --estimate stops before the first training.

The trainings are a benchmark in OUTPATH/benchmark, with its own report. The same command continues where it stopped;
more seeds or methods train only what is missing.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import Any

import _root  # noqa: F401

from engine.benchmark.options import BenchmarkOptions
from engine.options import DataOptions, TrainingOptions
from utils.errors import run
from utils.numbers import NonNegative, NonNegativeInt, PositiveInt, PositiveShare
from utils.options import Parser, add_options, option, read_options
from utils.ranks import refuse_several_processes

PUBLISHED: dict[str, Any] = {
    "train_teacher": "raunet",
    "teacher_epochs": 100,
    "smodel": "resnet_18",
    "epochs": 120,
    "batch_size": 8,
    "lr": 1e-2,
    "size": 512,
    "crop": 384,
    "augment": "paper",
}
"""The published settings, by flag."""
LOSSES = ("recursive_feedback_ours", "cat_feedback_ours", "indv_feedback", "deep_kd", "wo_feedback", "attn_kd")
"""As the published --loss_type names them: HLFD, IFD, HIFD, deep, SKD and AT."""
WITH_ERRORS = "hlfd_published"
"""HLFD's losses with all that is wrong in the published code, several times as slow."""
DEFAULTS = {
    "epochs": PUBLISHED["epochs"],
    "batch_size": PUBLISHED["batch_size"],
    "augment": PUBLISHED["augment"],
    "lr": 1e-3,  # does better than the published one, here
}
"""Of data and training; size and crop are as published by themselves."""
OF_DATA = ("dataset", "task", "size", "crop", "augment", "val_fraction")
OF_TRAINING = ("epochs", "batch_size", "lr", "amp", "workers", "device")


@dataclass(frozen=True)
class PaperOptions:
    """experiment: of which cases, and which rows"""

    inpath: Path = option(MISSING, "folder of the raw cases")
    outpath: Path = option(Path("runs/paper"), "folder to write to")
    train_teacher: str = option(PUBLISHED["train_teacher"], "the teacher", metavar="NETWORK")
    teacher_epochs: PositiveInt = option(PUBLISHED["teacher_epochs"], "the teacher's passes over the training slices")
    smodel: str = option(PUBLISHED["smodel"], "the student", metavar="NETWORK")
    methods: tuple[str, ...] = option((*LOSSES, WITH_ERRORS), "rows of the table", nargs="*", metavar="METHOD")
    without_published: bool = option(False, f"leave {WITH_ERRORS} out, whose step takes several times as long")
    seeds: tuple[NonNegativeInt, ...] = option((0, 1, 2), "a training of each student for each", metavar="SEED")
    longer: NonNegative = option(0.0, "also the student alone for R times the steps; 0: no such row", metavar="R")
    val_every: PositiveInt = option(4, "epochs between validations, which score every slice of their cases")
    test_fraction: PositiveShare = option(0.2, "share of the cases to test on")
    split_seed: NonNegativeInt = option(0, "for the division of the cases")
    no_distances: bool = option(False, "leave HD95 out, about a second a case")
    estimate: bool = option(False, "stop before the first training, after what it will take was printed")

    @property
    def rows(self) -> tuple[str, ...]:
        return tuple(name for name in self.methods if not (self.without_published and name == WITH_ERRORS))


def read_command() -> tuple[PaperOptions, DataOptions, TrainingOptions]:
    parser = Parser(__doc__)
    add_options(parser, PaperOptions)
    add_options(parser, DataOptions, OF_DATA, **DEFAULTS)
    add_options(parser, TrainingOptions, OF_TRAINING, **DEFAULTS)
    args = parser.parse_args()
    options = read_options(args, PaperOptions)
    training = replace(read_options(args, TrainingOptions), val_every=options.val_every)
    return options, read_options(args, DataOptions), training


def main() -> None:
    options, data, training = read_command()
    refuse_several_processes()
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    # PyTorch takes seconds to load, and --help should not wait for it.
    from datasets.splits import SPLITS, load_split
    from distillation import ALIASES
    from engine.benchmark.carry_out import carry_out
    from engine.benchmark.rows import read_row
    from engine.device import choose_device
    from engine.paper.hours import expect, hours_table
    from engine.paper.table import describe_differences, write_table
    from engine.reporting import format_table
    from engine.training.run import decide_data
    from networks import network_name

    # Cutting takes long, and what the command line has wrong should be said before it.
    choose_device(training.device)
    for name in (options.train_teacher, options.smodel):
        network_name(name)
    for name in options.rows:
        read_row(name)
    data = decide_data(data)
    slices = options.outpath / "slices"
    cut_slices(slices, options, data, training.workers)
    data = replace(data, train_data_path=slices)
    notice = describe_differences(
        load_split(slices / SPLITS), options.seeds, settings(options, data, training), PUBLISHED
    )
    benchmark = benchmark_options(options, data, training)
    print(format_table(hours_table(expect(benchmark, data, training))))
    print("with validations and scores, without HD95, where slices are loaded as fast as they are needed", flush=True)
    if options.estimate:
        return
    outcome = carry_out(benchmark, data, training)
    if outcome.any_finished:
        write_table(options.outpath, outcome, {ALIASES[name]: name for name in LOSSES}, notice)
    outcome.refuse_failures()


def cut_slices(outpath: Path, options: PaperOptions, data: DataOptions, workers: int | None) -> None:
    """Say what the slices will take, and cut those that are missing; UserError if the disk cannot hold them."""
    from datasets.raw import open_layout
    from datasets.slicing.options import SliceMakerOptions
    from datasets.slicing.slicemaker import make_slices
    from engine.paper.disk import estimate_disk, format_gb, require_disk

    layout = open_layout(str(data.dataset), options.inpath)
    label_map = layout.label_map(str(data.task))
    cutting = SliceMakerOptions(
        seed=options.split_seed,
        test_fraction=options.test_fraction,
        val_fraction=data.val_fraction,
        workers=None if workers is None else max(1, workers),
    )
    estimate = estimate_disk(options.inpath, outpath, layout, label_map, cutting)
    print(estimate, flush=True)
    free = require_disk(estimate, outpath)
    print(f"free disk: {format_gb(free)}{', maybe too little' if free < estimate.most else ''}", flush=True)
    print(make_slices(options.inpath, outpath, layout, label_map, cutting), flush=True)


def benchmark_options(options: PaperOptions, data: DataOptions, training: TrainingOptions) -> BenchmarkOptions:
    """The benchmark that the experiment is; the teacher's epochs become steps."""
    from datasets.slices.slice_folder import open_slices
    from engine.benchmark.prepare import count_steps_per_epoch

    slices = open_slices(data.train_data_path, str(data.dataset), str(data.task), "train")
    (steps_per_epoch,) = count_steps_per_epoch(slices, data.val_fraction, training.batch_size, [0]).values()
    return BenchmarkOptions(
        train_teacher=options.train_teacher,
        teacher_steps=options.teacher_epochs * steps_per_epoch,
        smodel=(options.smodel,),
        methods=options.rows,
        seeds=options.seeds,
        longer=options.longer,
        no_distances=options.no_distances,
        outpath=options.outpath / "benchmark",
        preset="full",
    )


def settings(options: PaperOptions, data: DataOptions, training: TrainingOptions) -> Mapping[str, Any]:
    """What was chosen, by flag."""
    from datasets.frame import Frame

    crop = data.crop if data.crop is not None else Frame(data.size or 0).side
    return {**vars(options), **vars(data), **vars(training), "crop": crop}


if __name__ == "__main__":
    run(main)
