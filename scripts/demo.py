"""The complete pipeline on phantoms: volumes, slices, teacher, student alone, distilled students, scores, a report.

    python scripts/demo.py                                   # what `make demo` runs
    python scripts/demo.py --short                           # a minute or two, to see that everything runs
    python scripts/demo.py --seeds 0 1 2 --outpath runs/seeds  # how much the networks differ, over seeds

The student is small and has a decoder, so that it sees as finely as its teacher, which is better only by what it has
learnt. Every step is a command of this repository, run as a user would; the report lists them.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import _root

from utils.errors import UserError, run
from utils.numbers import NonNegativeInt, PositiveInt
from utils.options import Parser, option

if TYPE_CHECKING:
    from engine.contours import Picture

    Pictures = dict[str, Picture]

NOTICE = (
    "These are phantoms: computer-made volumes. Their scores show that the software works and say nothing "
    "about patients."
)
TEACHER, STUDENT = "raunet", "malunet"
TEACHER_NAME, ALONE_NAME = "RAUNet (teacher)", "MALUNet alone"
METHODS = ("hlfd", "best")


@dataclass(frozen=True)
class Scale:
    """How much of everything; size: the side of a slice in pixels, of which networks see the published crop.

    slices: of a volume, from and to; steps: of each student.
    """

    cases: int = 28
    size: int = 96
    slices: tuple[int, int] = (20, 28)
    teacher_steps: int = 250
    steps: int = 150


FULL = Scale()
SHORT = Scale(cases=6, size=64, slices=(10, 12), teacher_steps=6, steps=6)


class Commands:
    """Runs this repository's commands and keeps a list of those that succeeded, which are not repeated."""

    def __init__(self, out: Path) -> None:
        self.lines: list[str] = []
        self.done = out / "finished_commands.txt"

    def __call__(self, script: str, *, made: Path | None = None, resume: Path | None = None, **options: object) -> None:
        """options: flag -> value or values. made: a file that shows it need not run again; resume: one to resume from.

        UserError if the command fails.
        """
        words = [word for flag, value in options.items() for word in (f"--{flag}", *_values(value))]
        line = shlex.join(["python", script, *words])
        self.lines.append(line)
        before = self.done.read_text().splitlines() if self.done.exists() else []
        if made is not None and made.exists() and line in before:
            print(f"# done before: {line}", flush=True)
            return
        print(f"$ {line}", flush=True)
        if resume is not None and resume.exists():
            words.append("--resume")
        status = subprocess.call([sys.executable, str(_root.ROOT / script), *words])
        if status:
            raise UserError(f"the command above ended with status {status}: {line}")
        self.done.parent.mkdir(parents=True, exist_ok=True)
        self.done.write_text("\n".join([*before, line]) + "\n")


def _values(value: object) -> list[str]:
    return [str(item) for item in (value if isinstance(value, tuple) else (value,))]


@dataclass(frozen=True)
class DemoOptions:
    """demo"""

    outpath: Path = option(Path("runs/demo"), "folder to write to")
    short: bool = option(False, "tiny phantoms and a few steps")
    seeds: tuple[NonNegativeInt, ...] = option((0,), "a training of each network for each", metavar="SEED")
    steps: PositiveInt | None = option(None, f"of each student (default: {FULL.steps}, or {SHORT.steps} with --short)")
    device: str = option("auto", "auto, cpu, cuda, cuda:1 or mps")
    figure: Path | None = option(None, "a PNG file to write the first test case's pictures to")


def main() -> None:
    (options,) = Parser(__doc__).read(DemoOptions)
    scale = SHORT if options.short else FULL
    steps = options.steps or scale.steps
    out = options.outpath / "short" if options.short else options.outpath
    raw, slices = out / "raw", out / "slices"
    commands = Commands(out)
    commands(
        "scripts/make_phantom.py", outpath=raw, dataset="kits", cases=scale.cases, size=scale.size, slices=scale.slices
    )
    commands(
        "scripts/SliceMaker.py",
        inpath=raw,
        outpath=slices,
        dataset="kits",
        task="tumor",
        test_fraction=0.3,
        val_fraction=0.1,
    )

    runs: dict[str, list[Path]] = {}
    for seed in options.seeds:
        teacher, alone = (out / f"{model}_{seed}" for model in (TEACHER, STUDENT))
        plan = {
            TEACHER_NAME: ("train.py", teacher, {"model": TEACHER, "size": scale.size, "steps": scale.teacher_steps}),
            ALONE_NAME: ("train.py", alone, {"model": STUDENT, "size": scale.size, "steps": steps}),
        }
        for method in METHODS:
            chosen = {"tckpt": teacher / "best.ckpt", "smodel": STUDENT, "kd": method, "steps": steps}
            plan[f"MALUNet with {method}"] = ("train_kd.py", out / f"{method}_{seed}", chosen)
        training = {"train_data_path": slices, "seed": seed, "device": options.device}
        for name, (script, folder, chosen) in plan.items():
            scores, last = folder / "scores.json", folder / "last.ckpt"
            commands(script, **chosen, **training, checkpoint_path=folder, made=scores, resume=last)
            where = {"inpath": raw, "splits": slices / "splits.json", "outpath": scores, "device": options.device}
            commands("scripts/evaluate.py", ckpt=folder / "best.ckpt", **where, made=scores)
            runs.setdefault(name, []).append(folder)
    of_teacher, *of_students = [(name, folders[0]) for name, folders in runs.items()]
    pictures = draw_pictures(raw, slices, dict([*of_students, of_teacher]))
    write_report(out, pictures, runs, commands.lines)
    if options.figure:
        write_figure(options.figure, next(iter(pictures.values())))


def write_report(
    out: Path, pictures: Mapping[str, Pictures], folders: Mapping[str, Sequence[Path]], commands: Sequence[str]
) -> None:
    """Print the results table and write report.html, from the files that the commands left."""
    from engine import reporting
    from engine.benchmark.results import LEAST_LEAD
    from engine.provenance import shown_line
    from utils.files import read_json, write_text

    networks = {
        name: [
            reporting.EvaluatedNetwork(name, read_json(path / "scores.json"), read_json(path / "history.json"))
            for path in paths
        ]
        for name, paths in folders.items()
    }
    first = [seeds[0] for seeds in networks.values()]
    tables = [reporting.results_table(first, "tumor")]
    leads = [
        teacher.result["regions"]["tumor"]["dice"]["mean"] - alone.result["regions"]["tumor"]["dice"]["mean"]
        for teacher, alone in zip(networks[TEACHER_NAME], networks[ALONE_NAME], strict=True)
    ]
    lead = sum(leads) / len(leads)
    gap = f"The teacher is {abs(lead):.3f} {'below' if lead < 0 else 'above'} the student alone in Dice"
    gap += "." if lead >= LEAST_LEAD else f": there is nothing to distil ({LEAST_LEAD} would do)."
    notice = f"{NOTICE} {gap}"
    if len(next(iter(networks.values()))) > 1:
        tables.append(reporting.seeds_table(networks, "tumor"))
        notice += f" The first table, the curves and the pictures are of seed {first[0].result['config']['seed']}."
    page = reporting.render(
        "demo.html.j2",
        title="Distilling a tumour segmentation network: demo on phantoms",
        notice=notice,
        tables=tables,
        curves=reporting.figure_png(reporting.curves_figure(first)),
        pictures={
            case: {caption: reporting.picture_png(picture) for caption, picture in row.items()}
            for case, row in pictures.items()
        },
        commands=[shown_line(line) for line in commands],
    )
    report = out / "report.html"
    write_text(report, page)
    for table in tables:
        print(f"\n{reporting.format_table(table)}")
    print(f"\n{NOTICE} {gap}\n{report}")


def draw_pictures(raw: Path, slices: Path, checkpoints: Mapping[str, Path], most: int = 4) -> dict[str, Pictures]:
    """Of the first test cases, the slice with the most tumour: CT, truth, and the contours of each network."""
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
    rows = {}
    for case in raw_cases(open_layout("kits", raw), raw, test[:most], window):
        truth = np.asarray(case.label == 2, np.uint8)
        index = int(truth.sum(axis=(1, 2)).argmax())
        zoom = max(1, 384 // case.image.shape[1])
        grey = grey_picture(case.image[index], case.window, zoom)
        row = {"CT": grey, "truth": draw_contours(grey, truth[index], TRUTH_COLOUR, zoom)}
        for name, segmenter in segmenters.items():
            predicted = segmenter.segment(case.image[index : index + 1], case.window)[0]
            row[name] = draw_contours(grey, predicted, PREDICTION_COLOUR, zoom)
        rows[f"case {case.name}"] = row
    return rows


def write_figure(path: Path, pictures: Pictures) -> None:
    """One row of pictures with their captions, as a PNG file."""
    from engine.reporting import figure_png, pictures_figure
    from utils.files import atomic_write

    with atomic_write(path) as temporary:
        temporary.write_bytes(figure_png(pictures_figure(pictures)))
    print(path)


if __name__ == "__main__":
    run(main)
