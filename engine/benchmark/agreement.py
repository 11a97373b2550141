"""How well the rows of a benchmark measure volumes."""

from __future__ import annotations

from collections.abc import Sequence

from engine.benchmark.results import RowResults
from engine.evaluation.score import RegionScores
from engine.names import shown_names
from engine.report.case_tables import size
from engine.report.charts import Chart, bland_altman

MOST_ROWS = 8
"""So many colours there are."""


def agreement_charts(rows: Sequence[RowResults]) -> list[Chart]:
    """A Bland-Altman plot for each region of each row; a case's predicted volume is the mean over its trainings.

    In mL, or in voxels where the spacing of any case is unknown; of the first `MOST_ROWS` rows.
    """
    entries = {row.name: [each for result in row.results.values() for each in result["rows"]] for row in rows}
    of_all = [entry for of_row in entries.values() for entry in of_row]
    unit = "mL" if all(entry.get("voxel_mm3") for entry in of_all) else "voxels"
    shown = shown_names(entry["case"] for entry in of_all)
    charts = []
    for region in dict.fromkeys(entry["region"] for entry in of_all):
        for number, row in enumerate(rows[:MOST_ROWS]):
            of_cases: dict[str, list[RegionScores]] = {}
            for entry in entries[row.name]:
                if entry["region"] == region:
                    of_cases.setdefault(entry["case"], []).append(entry)
            points = [(shown[case], *volumes(of_case, unit)) for case, of_case in of_cases.items()]
            charts.append(bland_altman(row.name, number, region, points, unit))
    return [chart for chart in charts if chart is not None]


def volumes(entries: Sequence[RegionScores], unit: str) -> tuple[float, float]:
    """Of a case: predicted, the mean over trainings, and true."""
    predicted = [size(entry, "predicted_voxels", unit) for entry in entries]
    return sum(predicted) / len(predicted), size(entries[0], "reference_voxels", unit)
