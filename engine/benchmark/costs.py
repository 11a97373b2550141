"""What networks and training steps of a benchmark cost: measured once and kept in costs.json."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from datasets.labelled_cases import cases_in_slices
from datasets.slices.slice_folder import SliceFolder, open_slices
from distillation.balance import EVERY
from engine.benchmark.rows import EQUAL_TIME, LONGER, UNDISTILLED, Row
from engine.benchmark.runs import Fold, Run, row_folder, run_options
from engine.benchmark.train_and_score import logged, teacher_of, use_threads
from engine.cost import measure_in_turns, network_cost, segmentation_speed
from engine.device import Precision, choose_device, environment
from engine.options import RunOptions
from engine.segmenter import Segmenter
from engine.training.run import new_segmenter
from engine.training.timed_step import TimedStep
from networks import build
from utils.allocation import freed_memory_kept
from utils.errors import UserError
from utils.files import make_folder, read_json, write_json

TURNS = 11  # timed steps of each kind
SLICES = 8  # timed on the CPU
OF_COSTS = ("model", "classes", "dataset", "task", "window", "size", "crop")
"""What in a fold's identity decides costs."""

Costs = dict[str, Any]


def measure(fold: Fold, students: Sequence[str], rows: Sequence[Row], longer: float | None) -> Costs:
    """{"networks": name -> parameters, ..., "steps": student -> row -> ms, ..., "lengths": student -> row -> multiple}.

    What costs.json has is not measured again, but networks are for another number of threads, and steps are for
    another processor, batch size, precision or number of threads. longer: the multiple of the longer row; None
    measures it, 0 leaves the row out. UserError if there are runs of another multiple.
    """
    make_folder(fold.outpath)
    use_threads(fold)
    costs = read_costs(fold)
    refuse_other_length(fold, students, costs, longer)
    measure_networks(fold, students, costs)
    for student in students:
        steps = measure_steps(fold, student, rows, costs)
        set_lengths(costs["lengths"].setdefault(student, {}), steps, rows, longer)
    write_json(fold.outpath / "costs.json", costs)
    if torch.cuda.is_available():
        # The runs may be other processes, which need this memory.
        torch.cuda.empty_cache()
    return costs


def is_measured(costs: Costs, students: Sequence[str], rows: Sequence[Row]) -> bool:
    """Whether costs.json has them all, on whatever processor: shards on other machines keep to its lengths."""
    names = {UNDISTILLED, *(row.step for row in rows)}
    measured = all(names <= costs["steps"].get(student, {}).keys() for student in students)
    lengths = {row.name for row in rows if row.name.endswith(EQUAL_TIME)}
    return measured and all(lengths <= costs["lengths"].get(student, {}).keys() for student in students)


def set_lengths(
    lengths: dict[str, float], steps: Mapping[str, Mapping[str, float]], rows: Sequence[Row], longer: float | None
) -> None:
    """Fill in the multiples of the steps of the longer row, if none was measured before, and of rows of equal time.

    steps: row -> "ratio" of its step. UserError for a row of equal time whose step could not be timed.
    """
    ratios = {name: step["ratio"] for name, step in steps.items()}
    if longer is None and ratios.keys() - {UNDISTILLED}:
        # The slowest method's time, rounded up to a tenth; kept, for the next launch goes by it.
        slowest = max(ratio for name, ratio in ratios.items() if name != UNDISTILLED)
        lengths.setdefault(LONGER, math.ceil(round(10 * slowest, 6)) / 10)
    elif longer:
        lengths[LONGER] = longer
    for row in rows:
        if row.name.endswith(EQUAL_TIME):
            if row.step not in ratios:
                raise UserError(f"{row.name}: a step could not be timed, which timing.log says why; leave the row out")
            # 0 leaves the longer row out: then the time is that of the undistilled row.
            lengths[row.name] = round((1.0 if longer == 0 else lengths.get(LONGER, 1.0)) / ratios[row.step], 2)


def lengths_of(costs: Costs, students: Sequence[str], longer: float | None) -> dict[str, dict[str, float]]:
    """Student -> row -> the multiple of the steps, without the longer row that an earlier launch had if it is 0 now."""
    lengths = {student: dict(costs["lengths"].get(student, {})) for student in students}
    if longer == 0:
        for of_student in lengths.values():
            of_student.pop(LONGER, None)
    return lengths


def read_costs(fold: Fold) -> Costs:
    """What was measured before; UserError if it was for other networks or images."""
    path = fold.outpath / "costs.json"
    costs: Costs = read_json(path) if path.exists() else {"networks": {}, "steps": {}, "lengths": {}}
    measured_for = {key: fold.identity[key] for key in OF_COSTS}
    if costs.setdefault("identity", measured_for) != measured_for:
        raise UserError(f"{path}: was measured for another teacher or other slices; give another --outpath")
    return costs


def refuse_other_length(fold: Fold, students: Sequence[str], costs: Costs, longer: float | None) -> None:
    """UserError if a student has trained alone for another multiple of the steps."""
    for student in students:
        before = costs["lengths"].get(student, {}).get(LONGER, longer)
        if longer and longer != before and row_folder(fold.outpath, student, LONGER).exists():
            raise UserError(
                f"{fold.outpath / 'costs.json'}: {student} trained alone for {before:g} times the steps, not "
                f"{longer:g}; give --longer {before:g}, or another --outpath"
            )


def measure_networks(fold: Fold, students: Sequence[str], costs: Costs) -> None:
    """Fill in what teacher and students cost on this CPU; answers on disk cost nothing."""
    data = fold.data
    slices = open_slices(data.train_data_path, str(data.dataset), str(data.task), "train", data.splits)
    processor = {"threads": torch.get_num_threads(), "cpu": environment(torch.device("cpu"))["processor"]}
    teacher = teacher_of(fold, torch.device("cpu"))
    costs["teacher"] = fold.identity["model"]
    for name in dict.fromkeys([*([teacher.model] if teacher else []), *students]):
        if not _measured_under(costs["networks"].get(name, {}), processor):
            segmenter = teacher or new_segmenter(RunOptions(name, data, replace(fold.training, init=None)), slices)[0]
            if name != segmenter.model:
                segmenter = segmenter.with_network(build(name, segmenter.label_map.num_classes), name)
            costs["networks"][name] = {**cost_on_slices(segmenter, slices), **processor}


def measure_steps(fold: Fold, student: str, rows: Sequence[Row], costs: Costs) -> dict[str, dict[str, float]]:
    """Row -> what its step costs; saved after each, for they take a while. Rows that fail are left out."""
    steps: dict[str, dict[str, Any]] = costs["steps"].setdefault(student, {})
    conditions = step_conditions(fold, student)
    for row in {row.step: replace(row, name=row.step) for row in [Row(UNDISTILLED), *rows]}.values():
        before = steps.pop(row.name, {})
        if _measured_under(before, conditions):
            steps[row.name] = before
        elif timed := time_step(fold, student, row):
            steps[row.name] = {**timed, **conditions}
            write_json(fold.outpath / "costs.json", costs)
            print(f"timed: {student} {row.name}, {timed['ms']:.0f} ms a step, x {timed['ratio']:.2f}", flush=True)
    return steps


def _measured_under(cost: Mapping[str, Any], conditions: Mapping[str, Any]) -> bool:
    return bool(cost) and conditions.items() <= cost.items()


def cost_on_slices(segmenter: Segmenter, slices: SliceFolder) -> dict[str, Any]:
    """The network's cost, and slices_per_second on the CPU, on slices of one case."""
    segmenter.network.to(memory_format=segmenter.network.memory_format)
    case = next(iter(cases_in_slices(slices, [*slices.val_cases, *slices.cases][:1], segmenter.window)))
    of_case = segmenter.for_case(case.name, case.stored_as)
    speed = segmentation_speed(of_case, case.image[:SLICES], case.window)
    return {**network_cost(segmenter), "slices_per_second": speed}


def step_conditions(fold: Fold, student: str) -> dict[str, Any]:
    """What the time of a student's step depends on besides its row."""
    training = fold.training
    device = choose_device(training.device)
    conditions = {
        "processor": environment(device)["processor"],
        "batch_size": training.batch_size,
        "amp": Precision(training.amp, device, build(student, classes=2)).name,
    }
    return conditions | ({"threads": torch.get_num_threads()} if device.type == "cpu" else {})


def time_step(fold: Fold, student: str, row: Row) -> dict[str, float]:
    """ms of a training step on a batch of slices, its ratio to the undistilled step measured in turns with it, bytes.

    Empty where the row cannot be built or fails: its runs will show why.
    """
    try:
        with logged(fold.outpath / "timing.log"):
            device = choose_device(fold.training.device)
            teacher = teacher_of(fold, device)
            seed = min(fold.steps_per_epoch)
            steps = {
                each.name: TimedStep(run_options(Run(fold, student, each, seed)), teacher)
                for each in (Row(UNDISTILLED), row)
            }
            step = steps[row.name]
            kinds: dict[str, Callable[[], None]] = dict(steps)
            if row.balance:
                kinds["measuring"] = step.measure_balance
            with freed_memory_kept(device.type == "cpu"):  # As in training.
                costs = measure_in_turns(kinds, TURNS, device)
            seconds = {name: cost.median for name, cost in costs.items()}
            if row.balance:
                seconds[row.name] += (seconds["measuring"] - seconds[row.name]) / EVERY
            memory = step.peak_bytes_on_cpu() or 1e9 * max(costs[row.name].gigabytes)
    except Exception:
        return {}
    return {"ms": 1000 * seconds[row.name], "ratio": seconds[row.name] / seconds[UNDISTILLED], "memory": memory}
