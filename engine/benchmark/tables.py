"""A benchmark's tables, as text in DataFrames: what each row scores, whether its gain is real, what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from engine.benchmark.results import LEAST_LEAD, Compared, RowResults, best_row, find_row, lead
from engine.benchmark.rows import LONGER, UNDISTILLED, step_name
from engine.benchmark.statistics import Comparison
from engine.cost import format_size
from engine.evaluation.summaries import case_means
from engine.reporting import format_mean_std, format_number

METRICS_OF_RUNS = ("dice", "argmax_dice", "ece", "hd95_mm", "slice_dice")


def score_table(
    rows: Sequence[RowResults], teacher: RowResults, compared: Compared, against: str = UNDISTILLED
) -> pd.DataFrame:
    """The teacher, then a line for each row of a student; compared: with its row `against`."""
    of_teacher = lead(teacher, find_row(rows, against))
    lines = [
        {
            "method": f"teacher, {row.student}" if row is teacher else row.name,
            "Dice": _mean_std(row, "dice"),
            **_gain_cells(compared.get((row.student, row.name)), of_teacher),
            "Dice by argmax": _mean_std(row, "argmax_dice"),
            "volume": _volume(row),
            "ECE": format_number(row.seed_means("ece").mean(), ".4f"),
            "HD95 mm": _distance(row),
            "slice-protocol Dice": _mean_std(row, "slice_dice"),
            "gradient": "" if row is teacher else _gradient(row),
            "runs": "" if row is teacher else str(len(row.results)),
            "false alarms": _false_alarms(row),
        }
        for row in (teacher, *rows)
    ]
    return drop_empty_columns(pd.DataFrame(lines))


def _gain_cells(compared: Comparison | None, of_teacher: float) -> dict[str, str]:
    """of_teacher: its lead over what the row is compared with."""
    if compared is None:
        return dict.fromkeys(("gain", "95 % interval", "p", "gap closed"), "")
    return {
        "gain": format_gain(compared.gain),
        "95 % interval": format_interval(compared),
        "p": format_p(compared.p),
        "gap closed": f"{round(100 * compared.gain / of_teacher)} %" if of_teacher >= LEAST_LEAD else "n/a",
    }


def volume_ratio(entries: Sequence[Mapping[str, Any]]) -> float:
    """All predicted voxels to all reference voxels; NaN without any of the latter."""
    predicted, reference = (sum(entry[f"{of}_voxels"] for entry in entries) for of in ("predicted", "reference"))
    return predicted / reference if reference else math.nan


def _volume(row: RowResults) -> str:
    ratios = [volume_ratio(result["rows"]) for result in row.results.values()]
    return format_number(float(np.mean(ratios)), ".2f")


def _gradient(row: RowResults) -> str:
    """The median over trainings of the distillation's gradient in the segmentation loss's, at the start and the end."""
    shares = [result["gradient_share"] for result in row.results.values() if len(result["gradient_share"]) == 2]
    if not shares:
        return ""
    return " → ".join(f"{np.median([share[place] for share in shares]):.2g}" for place in ("start", "end"))


def _false_alarms(row: RowResults) -> str:
    """How many predictions find something where the reference has nothing, of how many."""
    entries = [entry for result in row.results.values() for entry in result["rows"]]
    predicted = [entry["predicted_voxels"] for entry in entries if entry["reference_voxels"] == 0]
    return f"{sum(voxels > 0 for voxels in predicted)} of {len(predicted)}" if predicted else "n/a"


def _distance(row: RowResults) -> str:
    """The mean over seeds of the mean over cases; the share of defined ones where that is not all."""
    defined = int(row.scores("hd95_mm").count().sum())
    scored = sum(len(case_means(result["rows"])) for result in row.results.values())
    text = format_number(row.seed_means("hd95_mm").mean(), ".1f")
    return text if defined in (0, scored) else f"{text} ({defined}/{scored})"


def cost_table(rows: Sequence[RowResults], steps: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """What training costs, as measured; steps: row -> ms, ratio and memory of a step."""
    undistilled_ms = steps.get(UNDISTILLED, {}).get("ms", math.nan)
    lines = []
    for row in rows:
        step = steps.get(step_name(row.name), {})
        ratio = step.get("ratio", math.nan)
        runs = pd.DataFrame(row.results.values(), columns=["seconds", "preparation_s", "steps"], dtype=float)
        cells = {
            "step ms": (ratio * undistilled_ms, ".0f"),
            "ratio": (ratio, ".2f"),
            "memory MiB": (step.get("memory", math.nan) / 2**20, ".0f"),
            "preparation": (1000 * runs.preparation_s.median() / undistilled_ms, ".0f"),
            "steps": (runs.steps.iloc[0], ".0f"),
            "minutes a run": ((runs.seconds + runs.preparation_s).median() / 60, ".1f"),
        }
        lines.append({"training cost": row.name, **{name: format_number(*cell) for name, cell in cells.items()}})
    return drop_empty_columns(pd.DataFrame(lines))


def network_table(
    results: Mapping[str, Sequence[RowResults]], teacher: RowResults, costs: Mapping[str, Any]
) -> pd.DataFrame:
    """Teacher and students: size, speed, Dice undistilled and of the best row; a teacher on disk has no size."""
    networks = {teacher.student: [f"{teacher.student} (teacher)", _mean_std(teacher, "dice"), "", ""]}
    for student, rows in results.items():
        dice = {row.name: _mean_std(row, "dice") for row in rows}
        best = best_row(rows).name
        networks[student] = [student, dice.get(UNDISTILLED, "n/a"), best, dice[best]]
    lines = []
    for network, (name, *scores) in networks.items():
        size = ["n/a"] * 3
        if cost := costs["networks"].get(network):
            parameters, gmacs = format_size(cost["parameters"], cost["gmacs"])
            size = [parameters, f"{gmacs} at {cost['gmacs_at']}²", f"{cost['slices_per_second']:.1f}"]
        lines.append([name, *size, *scores])
    return pd.DataFrame(
        lines, columns=["network", "parameters", "GMACs", "CPU slices/s", "Dice", "best row", "its Dice"]
    )


def run_lines(rows: Sequence[RowResults], costs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line of results.csv for each run; training_time: in undistilled runs, by the measured time of a step."""
    kept = ("best_validation_dice", "steps", "step_ms", "seconds", "preparation_s")
    lines = []
    for row in rows:
        scores = {metric: row.scores(metric).mean(axis="columns") for metric in METRICS_OF_RUNS}
        for (fold, seed), result in row.results.items():
            shares = {f"gradient_{place}": result["gradient_share"].get(place) for place in ("start", "end")}
            elsewhere = {f"{data} dice": mean_of_cases(entries) for data, entries in result["also"].items()}
            lines.append(
                {
                    "student": row.student, "method": row.name, "fold": fold, "seed": seed,
                    "cases": len(case_means(result["rows"])),
                    **{metric: float(values[fold, seed]) for metric, values in scores.items()},
                    "volume": volume_ratio(result["rows"]),
                    **{name: result[name] for name in kept},
                    "training_time": training_time(row, costs), **shares, **elsewhere,
                }
            )  # fmt: skip
    return lines


def mean_of_cases(entries: Sequence[dict[str, Any]]) -> float:
    """The mean per-case Dice, where defined."""
    return float(np.nanmean(list(case_means(entries).values())))


def training_time(row: RowResults, costs: Mapping[str, Any]) -> float:
    """The time of one of the row's runs in undistilled runs; NaN where no step was measured."""
    if row.name == UNDISTILLED:
        return 1.0
    length = costs["lengths"].get(row.student, {}).get(row.name, math.nan if row.name == LONGER else 1.0)
    ratio = 1.0 if row.name == LONGER else costs["steps"].get(row.student, {}).get(step_name(row.name), {}).get("ratio")
    return float(length * ratio) if ratio else math.nan


def case_lines(rows: Sequence[RowResults]) -> list[dict[str, Any]]:
    """A line of cases.csv for each run, case and region; empty is undefined or not available.

    data: the name of other data than its own.
    """
    return [
        {"student": row.student, "method": row.name, "fold": fold, "seed": seed, "data": data}
        | {name: value for name, value in entry.items() if name != "seconds"}
        for row in rows
        for (fold, seed), result in row.results.items()
        for data, entries in {"": result["rows"], **result["also"]}.items()
        for entry in entries
    ]


def drop_empty_columns(table: pd.DataFrame) -> pd.DataFrame:
    """The table without the columns that hold nothing but "" and "n/a"."""
    return table.loc[:, ~table.isin(["", "n/a"]).all()]


def format_gain(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"  # no minus before a zero


def format_interval(compared: Comparison) -> str:
    return f"{format_gain(compared.low)} to {format_gain(compared.high)}"


def format_p(p: float) -> str:
    return "< 0.001" if p < 0.001 else format_number(p, ".3f")


def _mean_std(row: RowResults, metric: str) -> str:
    """Over seeds."""
    means = row.seed_means(metric)
    return format_mean_std(means.mean(), means.std(), ".3f")
