"""Scores of single cases: every network side by side, the differences, and where networks fail."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from engine.evaluation.score import RegionScores
from engine.reporting import EvaluatedNetwork, format_number


class Cell(NamedTuple):
    """value: what the column is sorted by; None where it is not defined."""

    text: str
    value: float | str | None


@dataclass(frozen=True)
class CaseTable:
    """groups: a heading over several columns, and their number; rows: the case first."""

    region: str
    groups: list[tuple[str, int]]
    columns: list[str]
    rows: list[list[Cell]]


class Failure(NamedTuple):
    """What networks did with a region of a case; badness: 2 missed, 1.5 a false alarm, else 1 - Dice; the worst's."""

    badness: float
    true: float
    """Size."""
    case: str
    region: str
    faults: list[tuple[str, str]]
    """Network, and what it did."""


LOW_DICE = 0.5
LARGE_ERROR = 0.5
"""Of a volume, as a share of the true one."""
METRICS = {"Dice": ("dice", ".3f"), "HD95 mm": ("hd95_mm", ".1f"), "volume error %": ("rvd", "+.0f")}


def regions_of(networks: Sequence[EvaluatedNetwork]) -> list[str]:
    return list(dict.fromkeys(entry["region"] for network in networks for entry in network.cases))


def by_case(network: EvaluatedNetwork, region: str) -> dict[str, RegionScores]:
    return {entry["case"]: entry for entry in network.cases if entry["region"] == region}


def number(value: float | None) -> float | None:
    """None for what is not defined, or not available."""
    return None if value is None or not math.isfinite(value) else float(value)


def size_unit(networks: Sequence[EvaluatedNetwork]) -> str:
    """mL where every case tells the size of its voxels."""
    known = all(number(entry.get("voxel_mm3")) for network in networks for entry in network.cases)
    return "mL" if known else "voxels"


def size(entry: RegionScores, voxels: str, unit: str) -> float:
    """`reference_voxels` or `predicted_voxels` of a case, in the unit."""
    count = float(entry[voxels])
    return count * entry["voxel_mm3"] / 1000 if unit == "mL" else count


def size_text(value: float, unit: str) -> str:
    return f"{value:.1f}" if unit == "mL" and value < 100 else f"{value:.0f}"


def case_table(networks: Sequence[EvaluatedNetwork], region: str, unit: str) -> CaseTable:
    """A row for each case, the lowest mean Dice first; Dice has differences to the first network too."""
    scores = [by_case(network, region) for network in networks]
    cases = list(dict.fromkeys(case for of_network in scores for case in of_network))
    names = [network.name for network in networks]
    groups, columns = [("", 2)], ["case", f"true size, {unit}"]
    for title in METRICS:
        own = names + ([f"{name} minus {names[0]}" for name in names[1:]] if title == "Dice" else [])
        groups.append((title, len(own)))
        columns += own
    rows = []
    for case in cases:
        entries = [of_network.get(case) for of_network in scores]
        known = next(entry for entry in entries if entry is not None)
        true = size(known, "reference_voxels", unit)
        row = [Cell(case, case), Cell(size_text(true, unit), true)]
        for title, (metric, form) in METRICS.items():
            factor = 100 if metric == "rvd" else 1
            values = [None if entry is None else number(entry[metric]) for entry in entries]
            row += [_cell(value, form, factor) for value in values]
            if title == "Dice":
                row += [_difference(value, values[0]) for value in values[1:]]
        rows.append(row)
    rows.sort(key=lambda row: _mean_dice(row[2 : 2 + len(names)]))
    return CaseTable(region, groups, columns, rows)


def _cell(value: float | None, form: str, factor: float = 1) -> Cell:
    if value is None:
        return Cell("n/a", None)
    return Cell(format_number(value * factor, form), value)


def _difference(value: float | None, first: float | None) -> Cell:
    return _cell(None if value is None or first is None else value - first, "+.3f")


def _mean_dice(cells: Sequence[Cell]) -> float:
    """Infinite where no network has one: both masks are empty."""
    values = [cell.value for cell in cells if isinstance(cell.value, float)]
    return sum(values) / len(values) if values else math.inf


def find_failures(networks: Sequence[EvaluatedNetwork], unit: str, most: int = 12) -> list[Failure]:
    """Regions of cases that a network missed, saw where there are none, overlaps badly or gives a wrong size.

    Worst first, of those missed the largest. Where nothing is that bad, the lowest Dice of each network and region.
    """
    found: dict[tuple[str, str], Failure] = {}
    for network in networks:
        for region in regions_of([network]):
            entries = [entry for entry in by_case(network, region).values() if number(entry["dice"]) is not None]
            faults = [(entry, fault) for entry in entries if (fault := _fault(entry, unit))]
            if entries and not faults:
                lowest = min(entries, key=lambda entry: float(entry["dice"]))
                faults = [(lowest, (1 - lowest["dice"], f"its lowest Dice, {lowest['dice']:.3f}"))]
            for entry, (badness, what) in faults:
                key = entry["case"], region
                true = size(entry, "reference_voxels", unit)
                before = found.get(key, Failure(0, true, *key, []))
                found[key] = Failure(max(badness, before.badness), true, *key, [*before.faults, (network.name, what)])
    return sorted(found.values(), key=lambda failure: (-failure.badness, -failure.true))[:most]


def _fault(entry: RegionScores, unit: str) -> tuple[float, str] | None:
    """How bad a case with a Dice is, and why; None where it is not."""
    true, predicted = (size(entry, voxels, unit) for voxels in ("reference_voxels", "predicted_voxels"))
    dice, error = float(entry["dice"]), number(entry["rvd"])
    sizes = f"{size_text(true, unit)} → {size_text(predicted, unit)} {unit}"
    if not true:
        return 1.5, f"false alarm, {size_text(predicted, unit)} {unit}"
    if not dice:
        return 2.0, f"missed, {sizes}"
    if dice < LOW_DICE or (error is not None and abs(error) > LARGE_ERROR):
        return 1 - dice, f"Dice {dice:.3f}, {sizes}"
    return None


def differences_table(networks: Sequence[EvaluatedNetwork], regions: Sequence[str]) -> pd.DataFrame | None:
    """Each further network against the first, case by case, in Dice; None where there is only one."""
    first, *others = networks
    lines = []
    for other in others:
        for region in regions:
            pairs = _pairs(by_case(other, region), by_case(first, region))
            if pairs:
                gains = [one - another for one, another in pairs]
                lines.append(
                    {
                        f"Dice, against {first.name}": other.name,
                        "region": region,
                        "mean difference": f"{sum(gains) / len(gains):+.3f}",
                        "better in": str(sum(gain > 0 for gain in gains)),
                        "worse in": str(sum(gain < 0 for gain in gains)),
                        "cases": str(len(gains)),
                    }
                )
    return pd.DataFrame(lines) if lines else None


def _pairs(one: Mapping[str, RegionScores], another: Mapping[str, RegionScores]) -> list[tuple[float, float]]:
    both = [(number(one[case]["dice"]), number(another[case]["dice"])) for case in one if case in another]
    return [(first, second) for first, second in both if first is not None and second is not None]
