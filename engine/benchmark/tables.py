"""A benchmark's tables, as text in DataFrames: what each row scores, whether its gain is real, what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from engine.benchmark.runs import LONGER, UNDISTILLED
from engine.benchmark.statistics import Comparison, compare, holm
from engine.cost import format_size
from engine.evaluation.summaries import case_means
from engine.reporting import format_mean_std, format_number


@dataclass
class RowResults:
    """The finished runs of one row and one student; results: seed (None: the teacher's) -> content of result.json."""

    student: str
    name: str
    results: dict[Any, dict[str, Any]]

    def scores(self, metric: str) -> pd.DataFrame:
        """Seeds x cases, NaN where undefined or not available."""
        means = {seed: case_means(result["rows"], metric) for seed, result in self.results.items()}
        return pd.DataFrame.from_dict(means, orient="index", dtype=float)

    def seed_means(self, metric: str) -> pd.Series:
        """Of each seed: the mean over cases, where defined."""
        return self.scores(metric).mean(axis="columns")


def find_row(rows: Sequence[RowResults], name: str) -> RowResults | None:
    return next((row for row in rows if row.name == name), None)


def best_row(rows: Sequence[RowResults]) -> RowResults:
    """The one with the highest mean Dice."""
    return max(rows, key=lambda row: np.nan_to_num(row.seed_means("dice").mean(), nan=-1.0))


def compare_rows(row: RowResults, base: RowResults) -> Comparison | None:
    """Over the seeds that both have; None if there are none."""
    seeds = sorted(row.results.keys() & base.results.keys())
    if not seeds:
        return None
    return compare(row.scores("dice").loc[seeds].to_numpy(), base.scores("dice").loc[seeds].to_numpy())


def comparisons(rows: Sequence[RowResults], against: str = UNDISTILLED) -> dict[str, Comparison]:
    """Row -> its comparison with the row `against`; p after Holm's correction."""
    base = find_row(rows, against)
    compared = {row.name: compare_rows(row, base) for row in rows if base and row is not base}
    found = {name: comparison for name, comparison in compared.items() if comparison}
    corrected = holm([comparison.p for comparison in found.values()])
    return {name: replace(comparison, p=p) for (name, comparison), p in zip(found.items(), corrected, strict=True)}


def score_table(rows: Sequence[RowResults], teacher: RowResults, against: str = UNDISTILLED) -> pd.DataFrame:
    """The teacher, then a line for each row."""
    compared = comparisons(rows, against)
    base = find_row(rows, against)
    lead = (teacher.scores("dice").iloc[0] - base.scores("dice")).mean().mean() if base else math.nan
    lines = [
        {
            "method": f"teacher, {row.student}" if row is teacher else row.name,
            "Dice": _mean_std(row, "dice"),
            **_gain_cells(compared.get(row.name), lead),
            "HD95 mm": _distance(row.scores("hd95_mm")),
            "slice-protocol Dice": _mean_std(row, "slice_dice"),
            "seeds": "" if row is teacher else str(len(row.results)),
            "false alarms": _false_alarms(row),
        }
        for row in (teacher, *rows)
    ]
    return drop_empty_columns(pd.DataFrame(lines))


def _gain_cells(compared: Comparison | None, lead: float) -> dict[str, str]:
    """lead: the teacher's, over what the row is compared with."""
    if compared is None:
        return dict.fromkeys(("gain", "95 % interval", "p", "gap closed"), "")
    return {
        "gain": format_gain(compared.gain),
        "95 % interval": format_interval(compared),
        "p": format_p(compared.p),
        "gap closed": f"{round(100 * compared.gain / lead)} %" if lead > 0 else "n/a",
    }


def _false_alarms(row: RowResults) -> str:
    """How many predictions find something where the reference has nothing, of how many."""
    entries = [entry for result in row.results.values() for entry in result["rows"]]
    predicted = [entry["predicted_voxels"] for entry in entries if entry["reference_voxels"] == 0]
    return f"{sum(voxels > 0 for voxels in predicted)} of {len(predicted)}" if predicted else "n/a"


def _distance(scores: pd.DataFrame) -> str:
    """The mean over seeds of the mean over cases; the share of defined ones where that is not all."""
    defined = int(scores.count().sum())
    text = format_number(scores.mean(axis="columns").mean(), ".1f")
    return text if defined in (0, scores.size) else f"{text} ({defined}/{scores.size})"


def cost_table(rows: Sequence[RowResults], steps: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """What training costs, as measured; steps: row -> ms, ratio and memory of a step."""
    undistilled_ms = steps.get(UNDISTILLED, {}).get("ms", math.nan)
    lines = []
    for row in rows:
        step = steps.get(UNDISTILLED if row.name == LONGER else row.name, {})
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
    """Teacher and students: size, speed, Dice undistilled and of the best row."""
    networks = {teacher.student: [f"{teacher.student} (teacher)", _mean_std(teacher, "dice"), "", ""]}
    for student, rows in results.items():
        dice = {row.name: _mean_std(row, "dice") for row in rows}
        best = best_row(rows).name
        networks[student] = [student, dice.get(UNDISTILLED, "n/a"), best, dice[best]]
    lines = []
    for network, (name, *scores) in networks.items():
        cost = costs["networks"][network]
        parameters, gmacs = format_size(cost["parameters"], cost["gmacs"])
        lines.append([name, parameters, f"{gmacs} at {cost['gmacs_at']}²", f"{cost['slices_per_second']:.1f}", *scores])
    return pd.DataFrame(
        lines, columns=["network", "parameters", "GMACs", "CPU slices/s", "Dice", "best row", "its Dice"]
    )


def run_lines(rows: Sequence[RowResults], costs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line of results.csv for each run; training_time: in undistilled runs, by the measured time of a step."""
    kept = ("best_validation_dice", "steps", "step_ms", "seconds", "preparation_s")
    lines = []
    for row in rows:
        means = {metric: row.seed_means(metric) for metric in ("dice", "hd95_mm", "slice_dice")}
        for seed, result in row.results.items():
            scores = {metric: float(values[seed]) for metric, values in means.items()}
            run = {"student": row.student, "method": row.name, "seed": seed, "cases": len(case_means(result["rows"]))}
            time = {"training_time": training_time(row, costs)}
            lines.append({**run, **scores, **{name: result[name] for name in kept}, **time})
    return lines


def training_time(row: RowResults, costs: Mapping[str, Any]) -> float:
    """The time of one of the row's runs in undistilled runs; NaN where no step was measured."""
    if row.name == LONGER:
        return float(costs["longer"].get(row.student, math.nan))
    return float(costs["steps"].get(row.student, {}).get(row.name, {}).get("ratio", math.nan))


def case_lines(rows: Sequence[RowResults]) -> list[dict[str, Any]]:
    """A line of cases.csv for each run, case and region; empty is undefined or not available."""
    return [
        {"student": row.student, "method": row.name, "seed": seed, **{k: v for k, v in entry.items() if k != "seconds"}}
        for row in rows
        for seed, result in row.results.items()
        for entry in result["rows"]
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
