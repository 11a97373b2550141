"""The paper's experiment as one command: the teacher, the student alone, and all six published losses.

    python scripts/paper.py --inpath data/raw/kits19 --dataset kits
    python scripts/paper.py --inpath data/raw/lits17 --dataset lits --task tumor --seeds 0 1 2 --estimate

Cuts slices, trains a RAUNet, then a ResNet-18 alone, with each published loss, and with the published code's own
losses, errors included, all at the published sizes, epochs and augmentation. It prints what this takes before it
starts; --estimate stops there. The same command continues where it stopped. The table, OUTPATH/paper.md and
paper.csv, has the published protocol (slices picked by the ground truth) beside whole volumes with a chosen decision.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Literal

import _root  # noqa: F401

from utils.errors import run
from utils.numbers import NonNegativeInt, PositiveInt
from utils.options import Parser, option

VAL_EVERY = 4  # epochs; a validation scores whole volumes


@dataclass(frozen=True)
class PaperOptions:
    """paper: the defaults are as published, but for the learning rate (docs/published.md)"""

    inpath: Path = option(MISSING, "folder of the raw cases")
    dataset: Literal["kits", "lits"] = option("kits", "layout of the raw cases")
    task: str = option("tumor", "organ, tumor or all")
    outpath: Path = option(Path("runs/paper"), "folder to write to")
    seeds: tuple[NonNegativeInt, ...] = option((0,), "a training of each student for each", metavar="SEED")
    model: str = option("raunet", "the teacher")
    smodel: str = option("resnet_18", "the student")
    size: NonNegativeInt = option(512, "slices are resized to SIZE x SIZE; 0 keeps them")
    crop: NonNegativeInt | None = option(None, "pixels a side that the network sees; 0 for all (default: 3/4 of SIZE)")
    teacher_epochs: PositiveInt = option(100, "of the teacher")
    epochs: PositiveInt = option(120, "of each student")
    batch_size: PositiveInt = option(8, "slices in a batch")
    without_published: bool = option(False, "leave out hlfd_published, whose step takes several times as long")
    estimate: bool = option(False, "cut the slices, print what the trainings will take, and stop")
    amp: Literal["auto", "off", "bf16", "fp16"] = option("auto", "mixed precision")
    workers: NonNegativeInt | None = option(None, "processes that load slices (default: by the number of cores)")
    device: str = option("auto", "auto, cpu, cuda, cuda:1 or mps")


def main() -> None:
    (options,) = Parser(__doc__).read(PaperOptions)

    # PyTorch takes seconds to load, and --help should not wait for it.
    from datasets.raw import open_layout
    from datasets.slicing.options import SliceMakerOptions
    from datasets.slicing.slicemaker import make_slices
    from engine.benchmark import paper
    from engine.benchmark.run import run_benchmark
    from engine.options import DataOptions, TrainingOptions

    layout = open_layout(options.dataset, options.inpath)
    slices = options.outpath / "slices"
    print(paper.check_disk(layout.find(options.inpath), slices), flush=True)
    cutting = SliceMakerOptions(test_fraction=paper.TEST_FRACTION, val_fraction=paper.VAL_FRACTION)
    print(make_slices(options.inpath, slices, layout, layout.label_map(options.task), cutting), flush=True)

    data = DataOptions(
        options.dataset, options.task, slices, size=options.size, crop=options.crop, augment=paper.AUGMENT
    )
    training = TrainingOptions(
        epochs=options.epochs, val_every=min(VAL_EVERY, options.epochs), batch_size=options.batch_size,
        amp=options.amp, workers=options.workers, device=options.device,
    )  # fmt: skip
    benchmark = paper.make_benchmark(
        data, training, options.model, options.smodel, options.teacher_epochs, options.seeds,
        options.outpath / "benchmark", published=not options.without_published,
    )  # fmt: skip
    print(paper.estimate_time(benchmark, data, training), flush=True)
    if not options.estimate:
        finished = run_benchmark(benchmark, data, training)
        print(paper.write_tables(finished, options.smodel, options.outpath))


if __name__ == "__main__":
    run(main)
