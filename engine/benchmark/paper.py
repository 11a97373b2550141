"""The paper's experiment: what it trains, what that takes, and its table.

V. Gorade, S. Mittal, D. Jha, U. Bagci: Rethinking Intermediate Layers Design in Knowledge Distillation for Kidney and
Liver Tumor Segmentation, ISBI 2024 (arXiv 2311.16700).
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import pandas as pd

from datasets.raw.layout import Case
from datasets.slices.slice_folder import open_slices
from datasets.slices.training_split import train_val_split
from engine.benchmark.options import BenchmarkOptions
from engine.benchmark.results import RowResults
from engine.benchmark.rows import UNDISTILLED, Row, read_row
from engine.benchmark.run import Finished
from engine.cost import measure_in_turns
from engine.device import choose_device
from engine.options import DataOptions, DistillationOptions, RunOptions, TrainingOptions
from engine.reporting import format_mean_std, format_table, markdown_table
from engine.training.run import decide_data, new_segmenter
from engine.training.timed_step import TimedStep
from networks import network_name
from utils.errors import UserError
from utils.files import atomic_write, make_folder, write_text

TEST_FRACTION, VAL_FRACTION = 0.2, 0.1
AUGMENT = "paper"
LOSSES = {
    "hlfd": "recursive_feedback_ours",
    "ifd": "cat_feedback_ours",
    "hifd": "indv_feedback",
    "deep": "deep_kd",
    "skd": "wo_feedback",
    "at": "attn_kd",
}
"""Our names of the six losses, and the published ones."""
BYTES_OF_VOXEL = 3  # int16 and uint8
REPEATS = 3
COLUMNS = {
    "published protocol: Dice": ("slice_dice", ".3f"),
    'published protocol: "VOE"': ("slice_published_voe", ".3f"),
    "published protocol: RVD": ("slice_rvd", "+.3f"),
    "whole volumes: Dice": ("dice", ".3f"),
    "Dice by argmax": ("argmax_dice", ".3f"),
    "VOE": ("voe", ".3f"),
    "RVD": ("rvd", "+.3f"),
    "HD95 mm": ("hd95_mm", ".1f"),
}
NOTICE = """\
Published protocol: p > 0.4 on slices that the ground truth picked, inside the crop; its "VOE" counts false positives
only, so that an empty prediction scores a perfect 0. Whole volumes: every slice, with the decision that the validation
cases chose. Mean over test cases, then mean ± standard deviation over seeds. Other than in the paper: the test cases
choose nothing, the split is ours, and the learning rate is 1e-3 in place of 1e-2."""


def check_disk(cases: Iterable[Case], outpath: Path) -> str:
    """How much room the slices take; UserError if there is less than that of the cases that are cut whole."""
    voxels = [count_voxels(case.image) for case in cases if case.image and case.label]
    most = BYTES_OF_VOXEL * sum(voxels)
    least = (TEST_FRACTION + VAL_FRACTION) * most
    make_folder(outpath)
    free = shutil.disk_usage(outpath).free
    if free < least and not any(outpath.iterdir()):
        raise UserError(f"{outpath}: has {free / 1e9:.1f} GB free, and the slices take {least / 1e9:.1f} at least")
    return (
        f"{len(voxels)} cases; their slices take {least / 1e9:.1f} to {most / 1e9:.1f} GB, for of training cases only "
        f"those with the target and a tenth of the others are cut; {free / 1e9:.1f} GB are free"
    )


def count_voxels(path: Path) -> int:
    """By the file's header; 0 where that cannot be read, which cutting the slices will report."""
    try:
        image: Any = nib.load(path)
    except (OSError, EOFError, nib.filebasedimages.ImageFileError):
        return 0
    return math.prod(image.shape)


def make_benchmark(
    data: DataOptions,
    training: TrainingOptions,
    model: str,
    smodel: str,
    teacher_epochs: int,
    seeds: Sequence[int],
    outpath: Path,
    published: bool,
) -> BenchmarkOptions:
    """Teacher, student alone, the six losses and, if wanted, the published code's own."""
    return BenchmarkOptions(
        train_teacher=model,
        teacher_steps=teacher_epochs * steps_per_epoch(data, training),
        smodel=(smodel,),
        methods=(*LOSSES, *(("hlfd_published",) if published else ())),
        seeds=tuple(seeds),
        longer=0,
        preset="full",
        outpath=outpath,
    )


def steps_per_epoch(data: DataOptions, training: TrainingOptions) -> int:
    """Of the slices as they were cut."""
    slices = open_slices(data.train_data_path, str(data.dataset), str(data.task), "train")
    names, _ = train_val_split(slices, data.val_fraction, training.seed)
    return -(-len(names) // training.batch_size)


def estimate_time(options: BenchmarkOptions, data: DataOptions, training: TrainingOptions) -> str:
    """The hours of all trainings, from steps timed on this device with an untrained teacher."""
    student_steps = training.epochs * steps_per_epoch(data, training)
    model, student = network_name(str(options.train_teacher)), network_name(options.smodel[0])
    teacher_steps = options.teacher_steps or student_steps
    hours = {f"teacher, {model}": time_step(model, Row(UNDISTILLED), None, data, training) * teacher_steps / 3600}
    for row in (Row(UNDISTILLED), *map(read_row, options.methods)):
        seconds = time_step(student, row, model, data, training)
        hours[row.name] = seconds * student_steps * len(options.seeds) / 3600
    lines = [f"{name:<24} {of_row:8.2f} h" for name, of_row in hours.items()]
    return "\n".join(
        [
            f"Trainings take about {sum(hours.values()):.1f} hours on {choose_device(training.device)}, validation and "
            f"scoring not counted ({teacher_steps} steps of the teacher, {student_steps} of each student, "
            f"{len(options.seeds)} seed(s)):",
            *lines,
        ]
    )


def time_step(model: str, row: Row, teacher: str | None, data: DataOptions, training: TrainingOptions) -> float:
    """Seconds of a step, the median of a few; teacher: the network that an untrained one is made of."""
    data, device = decide_data(data), choose_device(training.device)
    slices = open_slices(data.train_data_path, str(data.dataset), str(data.task), "train")
    with TemporaryDirectory() as folder:
        training = replace(training, checkpoint_path=Path(folder))
        of_teacher = None
        if teacher is not None:
            of_teacher, _ = new_segmenter(RunOptions(teacher, data, training), slices)
            of_teacher.network.to(device)
        distillation = DistillationOptions(Path(folder), methods=row.methods) if row.methods else None
        step = TimedStep(RunOptions(model, data, training, distillation), of_teacher)
        return measure_in_turns({"step": step}, REPEATS, device)["step"].median


def write_tables(finished: Finished, student: str, outpath: Path) -> str:
    """Write paper.md and paper.csv; the table as text."""
    lines = [table_line(finished.teacher, f"teacher, {finished.teacher.student}")]
    for row in finished.results[network_name(student)]:
        published = f" ({LOSSES[row.name]})" if row.name in LOSSES else ""
        lines.append(table_line(row, f"{row.student}, {row.name}{published}"))
    table = pd.DataFrame(lines)
    write_text(outpath / "paper.md", f"{markdown_table(table)}\n\n{NOTICE}\n")
    with atomic_write(outpath / "paper.csv") as temporary:
        table.to_csv(temporary, index=False)
    return f"\n{format_table(table)}\n\n{NOTICE}\nwritten: {outpath / 'paper.md'}, {outpath / 'paper.csv'}"


def table_line(row: RowResults, name: str) -> dict[str, str]:
    cells = {"network": name}
    for column, (metric, form) in COLUMNS.items():
        means = row.seed_means(metric)
        cells[column] = format_mean_std(means.mean(), means.std(), form)
    return cells
