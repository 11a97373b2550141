"""Export checkpoints, and print a Markdown table of their sizes, speeds and scores in each runtime.

    python scripts/bench_export.py --ckpt raunet/best.ckpt resnet_18/best.ckpt --train_data_path data/lits \\
        --splits splits.json --outpath exported

The forward passes of all networks in all runtimes take turns, one slice at a time, so that a busy machine slows all of
them; medians are compared. Threads are as many as PyTorch has (OMP_NUM_THREADS). The first network is what the speeds
of the others are compared to. Exports that lie in --outpath already are taken as they are.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path

import _root  # noqa: F401

from utils.errors import UserError, run
from utils.numbers import PositiveInt
from utils.options import Parser, option


@dataclass(frozen=True)
class BenchOptions:
    """table: which networks, and on what"""

    ckpt: tuple[Path, ...] = option(MISSING, "checkpoints of one data set and task, in folders named for their rows")
    train_data_path: Path = option(MISSING, "slices of all cases; training ones calibrate int8, validation ones choose")
    outpath: Path = option(MISSING, "folder for the exports, one folder a network")
    splits: Path | None = option(None, "a splits.json, whose test cases are scored (default: the slices' own)")
    size: PositiveInt | None = option(None, "pixels a side to measure speed at (default: what the first network sees)")
    repeats: PositiveInt = option(31, "timed passes of each network in each runtime")


def main() -> None:
    (options,) = Parser(__doc__).read(BenchOptions)
    names = [path.parent.name.removeprefix("deploy_") for path in options.ckpt]
    if len(set(names)) < len(names):
        raise UserError(f"--ckpt: two of the folders have one name ({', '.join(names)}); rename one")

    import torch

    from datasets.slices.slice_folder import open_slices
    from engine.cost import network_cost
    from engine.device import environment
    from engine.export.export import MODEL, export
    from engine.export.options import ExportOptions, Int8Options
    from engine.export.table import PYTORCH, forms_of, score_forms, time_forms, write_table

    forms = {}
    for name, checkpoint in zip(names, options.ckpt, strict=True):
        folder = options.outpath / name
        if not (folder / MODEL).exists():
            export(ExportOptions(checkpoint, folder), Int8Options(True, options.train_data_path))
        forms |= forms_of(name, checkpoint, folder)
    first = forms[names[0], PYTORCH].segmenter
    slices = open_slices(options.train_data_path, first.dataset, first.label_map.name, "test", options.splits)
    scores = score_forms(forms, slices, slices.test_cases)
    side = options.size or network_cost(first)["gmacs_at"]
    print(write_table(forms, time_forms(forms, side, options.repeats), scores))
    processor = environment(torch.device("cpu"))["processor"]
    print(f"\n{len(slices.test_cases)} test cases; speed at {side} x {side}, {torch.get_num_threads()} of {processor}.")


if __name__ == "__main__":
    run(main)
