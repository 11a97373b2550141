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
    from engine.reporting import EvaluatedNetwork

    Pictures = dict[str, Picture]

NOTICE = (
    "These are phantoms: computer-made volumes. Their scores show that the software works and say nothing "
    "about patients."
)
TEACHER, STUDENT = "raunet", "malunet"
TEACHER_NAME, ALONE_NAME = "RAUNet (teacher)", "MALUNet alone"
METHODS = ("hlfd", "best")
ATTENTION = "attention"
"""The folder of explain.py's page: where teacher, student alone and student with HLFD look."""


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
    looking = {name: runs[name][0] / "best.ckpt" for name in (TEACHER_NAME, ALONE_NAME, f"MALUNet with {METHODS[0]}")}
    commands(
        "scripts/explain.py",
        ckpt=tuple(looking.values()),
        names=tuple(looking),
        inpath=raw,
        splits=slices / "splits.json",
        method="gcam",
        random=1,
        outpath=out / ATTENTION,
        device=options.device,
    )
    write_report(out, raw, slices, runs, commands.lines, options.device)
    if options.figure:
        of_teacher, *of_students = [(name, folders[0]) for name, folders in runs.items()]
        write_figure(options.figure, draw_pictures(raw, slices, dict([*of_students, of_teacher])))


def write_report(
    out: Path, raw: Path, slices: Path, folders: Mapping[str, Sequence[Path]], commands: Sequence[str], device: str
) -> None:
    """Print the results tables and write report.html, from the files that the commands left."""
    from datasets.raw.options import ListOptions
    from engine.evaluation.evaluate import cases_to_score
    from engine.evaluation.options import CaseOptions
    from engine.provenance import shown_line
    from engine.report.attention import read_attention
    from engine.report.make import checkpoint_digest, read_network
    from engine.report.page import Around, write_page
    from engine.report.scoring import SHOWN_CASES, WorstCases, load_networks, show_scored
    from engine.reporting import format_table, results_table, seeds_table

    seeds = {name: [read_network(path / "scores.json", name) for path in of] for name, of in folders.items()}
    networks = [of_network[0] for of_network in seeds.values()]
    checkpoints = [of[0] / "best.ckpt" for of in folders.values()]
    loaded = load_networks(checkpoints, list(folders), device)
    where = CaseOptions(inpath=raw, splits=slices / "splits.json")
    worst = WorstCases(SHOWN_CASES)
    show_scored(loaded, networks, cases_to_score(loaded[0].segmenter, where, ListOptions(), text="drawing"), worst)
    gap = describe_gap(seeds[TEACHER_NAME], seeds[ALONE_NAME])
    notice, tables = f"{NOTICE} {gap}", {}
    if len(seeds[TEACHER_NAME]) > 1:
        tables["Every seed"] = seeds_table(seeds, "tumor")
        notice += f" All but the table of seeds is of seed {seeds[TEACHER_NAME][0].result['config']['seed']}."
    report = out / "report.html"
    title = "Distilling a tumour segmentation network: demo on phantoms"
    lines = [shown_line(line) for line in commands]
    attention = read_attention(out / ATTENTION, {network.name: checkpoint_digest(network) for network in networks})
    around = Around(title, notice, tables, lines, attention)
    write_page(report, networks, worst.viewer(loaded[0].segmenter, list(folders)), around)
    for table in (results_table(networks, "tumor"), *tables.values()):
        print(f"\n{format_table(table)}")
    print(f"\n{NOTICE} {gap}\n{report}")


def describe_gap(teachers: Sequence[EvaluatedNetwork], alone: Sequence[EvaluatedNetwork]) -> str:
    """Whether there is anything to distil: the teacher's lead in Dice, mean over seeds."""
    from engine.benchmark.results import LEAST_LEAD

    means = [[one.result["regions"]["tumor"]["dice"]["mean"] for one in seeds] for seeds in (teachers, alone)]
    lead = (sum(means[0]) - sum(means[1])) / len(means[0])
    gap = f"The teacher is {abs(lead):.3f} {'below' if lead < 0 else 'above'} the student alone in Dice"
    return gap + ("." if lead >= LEAST_LEAD else f": there is nothing to distil ({LEAST_LEAD} would do).")


def draw_pictures(raw: Path, slices: Path, checkpoints: Mapping[str, Path]) -> Pictures:
    """Of the first test case, the slice with the most tumour: CT, truth, and the contours of each network."""
    import numpy as np
    import torch

    from datasets.labelled_cases import raw_cases
    from datasets.raw import open_layout
    from datasets.splits import load_split
    from engine.contours import PREDICTION_COLOUR, TRUTH_COLOUR, draw_contours, grey_picture
    from engine.saved_segmenter import load_segmenter

    segmenters = {
        name: load_segmenter(folder / "best.ckpt", torch.device("cpu"))[0] for name, folder in checkpoints.items()
    }
    first = load_split(slices / "splits.json").test[:1]
    window = next(iter(segmenters.values())).window
    (case,) = raw_cases(open_layout("kits", raw), raw, first, window)
    truth = np.asarray(case.label == 2, np.uint8)
    index = int(truth.sum(axis=(1, 2)).argmax())
    zoom = max(1, 384 // case.image.shape[1])
    grey = grey_picture(case.image[index], case.window, zoom)
    row = {"CT": grey, "truth": draw_contours(grey, truth[index], TRUTH_COLOUR, zoom)}
    for name, segmenter in segmenters.items():
        predicted = segmenter.segment(case.image[index : index + 1], case.window)[0]
        row[name] = draw_contours(grey, predicted, PREDICTION_COLOUR, zoom)
    return row


def write_figure(path: Path, pictures: Pictures) -> None:
    """One row of pictures with their captions, as a PNG file."""
    from engine.reporting import figure_png, pictures_figure
    from utils.files import atomic_write

    with atomic_write(path) as temporary:
        temporary.write_bytes(figure_png(pictures_figure(pictures)))
    print(path)


if __name__ == "__main__":
    run(main)
