"""The whole job on phantoms: volumes, slices, teacher, student alone, distilled student, scores, a report.

    python scripts/demo.py                                   # what `make demo` runs
    python scripts/demo.py --short                           # a minute or two, to see that everything runs
    python scripts/demo.py --seeds 0 1 2 --outpath runs/seeds  # how far apart the networks are, over seeds

Every step is a command of this repository, run as a user would; the report lists them.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import _root

from engine.options import Parser, whole
from utils.errors import UserError, run

if TYPE_CHECKING:
    from engine.reporting import PictureRow

NOTICE = (
    "These are phantoms: computer-made volumes. Their scores show that the software works and say nothing "
    "about patients."
)
STUDENT = "resnet_18"


@dataclass(frozen=True)
class Scale:
    """How much of everything; pixels is the side of a slice."""

    cases: int = 28
    pixels: int = 128
    slices: tuple[int, int] = (20, 28)
    epochs: int = 8


FULL = Scale()
SHORT = Scale(cases=6, pixels=64, slices=(10, 12), epochs=2)


class Commands:
    """Runs this repository's commands and keeps a list of those that ran well, which are not repeated."""

    def __init__(self, out: Path) -> None:
        self.lines: list[str] = []
        self.done = out / "commands.txt"

    def __call__(self, script: str, *words: object, made: Path | None = None, resume: Path | None = None) -> None:
        """made: what the command leaves, if it need not run again; resume: a file that an interrupted run leaves."""
        arguments = [str(word) for word in words]
        line = shlex.join(["python", script, *arguments])
        self.lines.append(line)
        before = self.done.read_text().splitlines() if self.done.exists() else []
        if made is not None and made.exists() and line in before:
            print(f"# done before: {line}", flush=True)
            return
        print(f"$ {line}", flush=True)
        if resume is not None and resume.exists():
            arguments.append("--resume")
        status = subprocess.call([sys.executable, str(_root.ROOT / script), *arguments])
        if status:
            raise UserError(f"the command above ended with status {status}: {line}")
        self.done.parent.mkdir(parents=True, exist_ok=True)
        self.done.write_text("\n".join([*before, line]) + "\n")


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--outpath", type=Path, default=Path("runs/demo"), help="default: runs/demo")
    parser.add_argument("--short", action="store_true", help="tiny phantoms and two epochs")
    parser.add_argument("--seeds", type=whole(0), nargs="+", default=[0], help="training seeds (default: 0)")
    parser.add_argument("--epochs", type=whole(1), help=f"default: {FULL.epochs}, or {SHORT.epochs} with --short")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")
    args = parser.parse_args()
    scale = SHORT if args.short else FULL
    epochs = args.epochs or scale.epochs
    out: Path = args.outpath / "short" if args.short else args.outpath
    raw, slices = out / "raw", out / "slices"
    commands = Commands(out)
    commands(
        "scripts/make_phantom.py", "--outpath", raw, "--dataset", "kits", "--cases", scale.cases,
        "--size", scale.pixels, "--slices", *scale.slices,
    )  # fmt: skip
    commands(
        "scripts/SliceMaker.py", "--inpath", raw, "--outpath", slices, "--dataset", "kits", "--task", "tumor",
        "--test_fraction", 0.3, "--val_fraction", 0.1,
    )  # fmt: skip
    runs: dict[str, list[Path]] = {}
    for seed in args.seeds:
        common = [
            "--train_data_path", slices, "--epochs", epochs, "--seed", seed, "--device", args.device,
            "--val_every", max(1, round(epochs / 5)),
        ]  # fmt: skip
        frame = ["--size", scale.pixels, "--crop", 0]
        teacher, alone, distilled = (out / f"{name}_{seed}" for name in ("raunet", STUDENT, "hlfd"))
        plan = {
            "RAUNet (teacher)": (teacher, "train.py", ["--model", "raunet", *frame]),
            "ResNet-18 alone": (alone, "train.py", ["--model", STUDENT, *frame]),
            "ResNet-18 with HLFD": (
                distilled, "train_kd.py", ["--tckpt", teacher / "best.ckpt", "--smodel", STUDENT],
            ),
        }  # fmt: skip
        for name, (folder, script, words) in plan.items():
            finished = folder / "scores.json"
            last = folder / "last.ckpt"
            commands(script, *words, *common, "--checkpoint_path", folder, made=finished, resume=last)
            commands(
                "scripts/evaluate.py", "--ckpt", folder / "best.ckpt", "--inpath", raw,
                "--splits", slices / "splits.json", "--out", finished, "--device", args.device, made=finished,
            )  # fmt: skip
            runs.setdefault(name, []).append(folder)
    write_report(out, raw, slices, runs, commands.lines)


def write_report(out: Path, raw: Path, slices: Path, folders: dict[str, list[Path]], commands: list[str]) -> None:
    """Print the results table and write report.html, from the files that the commands left."""
    from engine.reporting import (
        Run,
        curves_figure,
        format_table,
        html_page,
        results_table,
        seeds_table,
    )
    from utils.files import atomic_write, read_json

    runs = {
        name: [Run(name, read_json(f / "scores.json"), read_json(f / "history.json")) for f in paths]
        for name, paths in folders.items()
    }
    first = [of_seeds[0] for of_seeds in runs.values()]
    tables = [results_table(first, "tumor")]
    notice = NOTICE
    if len(next(iter(runs.values()))) > 1:
        tables.append(seeds_table(runs, "tumor"))
        notice += f" The first table, the curves and the pictures are of seed {first[0].result['config']['seed']}."
    page = html_page(
        "Distilling a tumour segmentation network: demo on phantoms", notice, tables, curves_figure(first),
        pictures(raw, slices, {name: paths[0] for name, paths in folders.items()}), commands,
    )  # fmt: skip
    report = out / "report.html"
    with atomic_write(report) as temporary:
        temporary.write_text(page, encoding="utf-8")
    for table in tables:
        print(f"\n{format_table(table)}")
    print(f"\n{NOTICE}\n{report}")


def pictures(raw: Path, slices: Path, checkpoints: dict[str, Path], most: int = 4) -> list[PictureRow]:
    """The slice with the most tumour of the first test cases: CT, truth, and each network's contour."""
    import numpy as np
    import torch

    from datasets.labelled_cases import raw_cases
    from datasets.raw import open_layout
    from datasets.splits import load_split
    from engine.contours import PREDICTION_COLOUR, TRUTH_COLOUR, draw_contours, grey_picture
    from engine.segmenter import load_segmenter

    segmenters = {
        name: load_segmenter(folder / "best.ckpt", torch.device("cpu"))[0] for name, folder in checkpoints.items()
    }
    test = load_split(slices / "splits.json").test
    window = next(iter(segmenters.values())).window
    rows = []
    for case in raw_cases(open_layout("kits", raw), raw, test[:most], window):
        truth = np.asarray(case.label == 2, np.uint8)
        index = int(truth.sum(axis=(1, 2)).argmax())
        zoom = max(1, 384 // case.image.shape[1])
        grey = grey_picture(case.image[index], case.window, zoom)
        row = [("CT", grey), ("truth", draw_contours(grey, truth[index], TRUTH_COLOUR, zoom))]
        for name, segmenter in segmenters.items():
            found = segmenter.segment(case.image[index : index + 1], case.window)[0]
            row.append((name, draw_contours(grey, found, PREDICTION_COLOUR, zoom)))
        rows.append((f"case {case.name}", row))
    return rows


if __name__ == "__main__":
    run(main)
