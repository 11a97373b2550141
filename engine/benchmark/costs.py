"""What networks and training steps of a benchmark cost: measured once and kept in costs.json."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from datasets.labelled_cases import cases_in_slices
from datasets.slices.slice_folder import SliceFolder, open_slices
from distillation.balance import EVERY
from distillation.task import Distiller
from engine.benchmark.runs import LONGER, UNDISTILLED, Benchmark, Row, Run, has_begun, training_args
from engine.benchmark.train_and_score import logged, prepare, use_threads
from engine.device import Precision, choose_device, environment
from engine.segmenter import Segmenter, load_segmenter
from engine.timing import measure_in_turns
from engine.training.run import make_trainer
from networks import build
from networks.count import count
from networks.memory import LiveBytes
from utils.errors import UserError
from utils.files import make_folder, read_json, write_json

TURNS = 11  # timed steps of each kind
SLICES = 8  # timed on the CPU

Costs = dict[str, Any]


def measure(benchmark: Benchmark, students: Sequence[str], rows: Sequence[Row], longer: float | None = None) -> Costs:
    """{"networks": name -> parameters, ..., "steps": student -> row -> ms, ..., "longer": student -> multiple}.

    What costs.json knows is not measured again, but networks are for another number of threads, and steps are for
    another processor, batch size, precision or number of threads. longer: the multiple to write down instead of a
    measured one, which is the dearest row's step time in undistilled steps, rounded up to a tenth; 0 writes none.
    UserError if runs of another multiple are there.
    """
    make_folder(benchmark.outpath)
    use_threads(benchmark)
    path = benchmark.outpath / "costs.json"
    costs: Costs = read_json(path) if path.exists() else {"networks": {}, "steps": {}, "longer": {}}
    if costs.setdefault("identity", dict(benchmark.identity)) != benchmark.identity:
        raise UserError(f"{path}: was measured for another teacher or other slices; give another --outpath")
    for student in students:
        # Not overwritten below: without --longer, the next launch goes by it.
        known = costs["longer"].get(student, longer)
        if longer and longer != known and has_begun(benchmark, student, LONGER):
            raise UserError(
                f"{path}: {student} trained alone for {known:g} times the steps, not {longer:g}; "
                f"give --longer {known:g}, or another --outpath"
            )
    teacher, _ = load_segmenter(benchmark.tckpt, torch.device("cpu"))
    slices = open_slices(benchmark.train_data_path, teacher.dataset, teacher.label_map.name, "train")
    processor = {"threads": torch.get_num_threads(), "cpu": environment(torch.device("cpu"))["processor"]}
    costs["teacher"] = teacher.model
    for name in {teacher.model: 0, **dict.fromkeys(students, 0)}:
        known = costs["networks"].get(name, {})
        if {**known, **processor} != known:
            network = teacher.network if name == teacher.model else build(name, teacher.label_map.num_classes)
            segmenter = replace(teacher, network=network, model=name)
            costs["networks"][name] = {**network_cost(segmenter, slices), **processor}
    for student in students:
        steps = costs["steps"].setdefault(student, {})
        conditions = step_conditions(benchmark, student)
        for row in [Row(UNDISTILLED), *rows]:
            known = steps.pop(row.name, {})
            if {**known, **conditions} == known:
                steps[row.name] = known
            elif timed := time_step(benchmark, student, row):
                steps[row.name] = {**timed, **conditions}
                write_json(path, costs)
                print(f"timed: {student} {row.name}, {timed['ms']:.0f} ms a step, x {timed['ratio']:.2f}", flush=True)
        ratios = [steps[row.name]["ratio"] for row in rows if row.name in steps]
        if longer is None and ratios:
            costs["longer"].setdefault(student, math.ceil(round(10 * max(ratios), 6)) / 10)
        elif longer:
            costs["longer"][student] = longer
    write_json(path, costs)
    if torch.cuda.is_available():
        # The runs may be other processes, which need this memory.
        torch.cuda.empty_cache()
    return costs


def network_cost(segmenter: Segmenter, slices: SliceFolder) -> dict[str, float]:
    """Parameters, GMACs for one framed slice, and slices per second from source pixels to labels on the CPU."""
    segmenter.network.to(memory_format=torch.channels_last)
    side = segmenter.frame.image(torch.zeros(1, 512, 512)).shape[-1]
    parameters, macs = count(segmenter.network, side)
    case = next(iter(cases_in_slices(slices, [*slices.val_cases, *slices.cases][:1], segmenter.window)))
    image = case.image[:SLICES]
    cost = measure_in_turns({"segment": lambda: segmenter.segment(image, case.window)}, repeats=3)["segment"]
    return {
        "parameters": parameters,
        "gmacs": round(macs / 1e9, 3),
        "gmacs_at": side,
        "slices_per_second": len(image) / cost.median,
    }


def step_conditions(benchmark: Benchmark, student: str) -> dict[str, Any]:
    """What a step's time depends on, beside student and row."""
    args = training_args(benchmark, Run(student, Row(UNDISTILLED), 0, benchmark.outpath))
    device = choose_device(args.device)
    conditions = {
        "processor": environment(device)["processor"],
        "batch_size": args.batch_size,
        "amp": Precision(args.amp, device).name,
    }
    return conditions | ({"threads": torch.get_num_threads()} if device.type == "cpu" else {})


def time_step(benchmark: Benchmark, student: str, row: Row) -> dict[str, float]:
    """ms of a whole training step on a batch of slices, its ratio to the undistilled step, by turns with it, and bytes.

    Empty where the row cannot be built or fails: its runs will tell why.
    """
    try:
        with logged(benchmark.outpath / "timing.log"):
            steps = {
                each.name: TimedStep(benchmark, Run(student, each, 0, benchmark.outpath))
                for each in (Row(UNDISTILLED), row)
            }
            kinds: dict[str, Callable[[], None]] = dict(steps)
            if row.balance:
                kinds["measuring"] = steps[row.name].measuring
            costs = measure_in_turns(kinds, TURNS, steps[row.name].device)
            seconds = {name: cost.median for name, cost in costs.items()}
            if row.balance:
                seconds[row.name] += (seconds["measuring"] - seconds[row.name]) / EVERY
            memory = steps[row.name].bytes_on_cpu() or 1e9 * max(costs[row.name].gigabytes)
    except Exception:
        return {}
    return {"ms": 1000 * seconds[row.name], "ratio": seconds[row.name] / seconds[UNDISTILLED], "memory": memory}


class TimedStep:
    """A training step of a run, over and over on the same batch."""

    def __init__(self, benchmark: Benchmark, run: Run) -> None:
        prepared = prepare(benchmark, run)
        prepared[0].workers = 0
        self.trainer = make_trainer(*prepared)
        batch = next(iter(self.trainer.loader))
        self.trainer.task.train()
        self.trainer.task.prepare([batch])
        self.device = self.trainer.precision.device
        self.batch = batch.to(self.device)

    def __call__(self) -> None:
        self.trainer.step(self.batch)

    def measuring(self) -> None:
        """A step in which the terms' gradients are measured, as happens every `EVERY` steps."""
        assert isinstance(self.trainer.task, Distiller) and self.trainer.task.balance is not None
        self.trainer.task.balance.steps = 0
        self()

    def bytes_on_cpu(self) -> float:
        """The most that tensors made in a step hold at once; 0 on other devices, which tell it themselves."""
        if self.device.type != "cpu":
            return 0.0
        with LiveBytes() as live:
            self()
        return float(live.peak)
