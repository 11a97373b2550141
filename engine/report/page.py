"""The page of a report, from scores and, where volumes were scored, what its viewer shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from engine.evaluation.summaries import summarise
from engine.names import shown_names
from engine.provenance import git_commit, package_versions
from engine.report.attention import AttentionSection
from engine.report.case_tables import by_case, case_table, differences_table, find_failures, regions_of, size, size_unit
from engine.report.charts import Chart, bland_altman, dice_by_size, training_curves
from engine.report.viewer_case import ViewerCase
from engine.reporting import EvaluatedNetwork, render, results_table
from utils.files import write_text


@dataclass(frozen=True)
class Viewer:
    """layers: truth and networks; regions: name -> classes; cases: to look at, the worst first."""

    layers: Sequence[str] = ()
    regions: Mapping[str, Sequence[int]] = field(default_factory=dict)
    cases: Sequence[ViewerCase] = ()


@dataclass(frozen=True)
class Around:
    """What stands around the report: tables: caption -> more of them; commands: that made all this.

    attention: where the networks look, if that was measured.
    """

    title: str
    notice: str
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    commands: Sequence[str] = ()
    attention: AttentionSection | None = None


def write_page(path: Path, networks: Sequence[EvaluatedNetwork], viewer: Viewer, around: Around) -> dict[str, str]:
    """Write the report; networks: each with the scores of its cases. Returns case -> its name in the page."""
    shown = shown_names(entry["case"] for network in networks for entry in network.cases)
    networks = [renamed(network, shown) for network in networks]
    cases = [replace(case, name=shown[case.name]) for case in viewer.cases]
    write_text(path, render("report.html.j2", **content(networks, replace(viewer, cases=cases), around)))
    return shown


def renamed(network: EvaluatedNetwork, names: Mapping[str, str]) -> EvaluatedNetwork:
    """The same network with other names of its cases."""
    cases = [{**entry, "case": names[entry["case"]]} for entry in network.cases]
    seen = [names.get(case, case) for case in network.result["seen_in_training"]]
    return replace(network, cases=cases, result={**network.result, "seen_in_training": seen})


def content(networks: Sequence[EvaluatedNetwork], viewer: Viewer, around: Around) -> dict[str, Any]:
    """What the template shows."""
    cases = {entry["case"] for network in networks for entry in network.cases}
    seen = {case for network in networks for case in network.result["seen_in_training"]} & cases
    regions, unit = regions_of(networks), size_unit(networks)
    descriptions = [{"name": case.name, **case.description} for case in viewer.cases]
    return {
        "title": around.title,
        "notice": around.notice,
        "warnings": training_warnings(networks, len(cases), seen),
        "results": {**results(networks, regions, cases, seen), **around.tables},
        "names": [network.name for network in networks],
        "cases": len(cases),
        "seen": seen,
        "failures": find_failures(networks, unit),
        "case_tables": [case_table(networks, region, unit) for region in regions],
        "by_size": by_size(networks, regions, unit),
        "agreement": agreement(networks, regions, unit),
        "curves": training_curves([(network.name, network.history) for network in networks]),
        "about": about_table(networks),
        "footer": footer(networks),
        "commands": around.commands,
        "attention": around.attention,
        "shown": {case.name for case in viewer.cases},
        "left_out": len(cases) - len(viewer.cases),
        "payloads": [case.payload for case in viewer.cases],
        "data": {
            "layers": list(viewer.layers),
            "regions": [{"name": name, "classes": list(classes)} for name, classes in viewer.regions.items()],
            "cases": descriptions,
        },
    }


def training_warnings(networks: Sequence[EvaluatedNetwork], cases: int, seen: set[str]) -> list[str]:
    """Which cases a network was trained or chosen on: their scores promise nothing for other cases."""
    trained: dict[tuple[str, ...], list[str]] = {}
    for network in networks:
        own = tuple(sorted(seen & set(network.result["seen_in_training"])))
        trained.setdefault(own, []).append(network.name)
    return [
        f"{len(own)} of these {cases} cases trained {' and '.join(names)}, or chose the checkpoint. Scores on them "
        f"say nothing about new cases. They are {', '.join(own[:30])}" + (", ..." if len(own) > 30 else ".")
        for own, names in trained.items()
        if own
    ]


def results(
    networks: Sequence[EvaluatedNetwork], regions: Sequence[str], cases: set[str], seen: set[str]
) -> dict[str, pd.DataFrame]:
    """Caption -> table: cases that no network has seen first, where there are others too."""
    parts = {"cases that no network was trained or chosen on": cases - seen, "all cases": cases}
    if not 0 < len(seen) < len(cases):
        parts = {"all cases": cases}
    tables = {}
    for caption, chosen in parts.items():
        own = [of_cases(network, chosen) for network in networks]
        for region in regions:
            tables[f"{region}, {caption}"] = results_table(own, region)
        differences = differences_table(own, regions)
        if differences is not None:
            tables[f"Case by case, {caption}"] = differences
    return tables


def of_cases(network: EvaluatedNetwork, chosen: set[str]) -> EvaluatedNetwork:
    """The network with the scores of some of its cases."""
    cases = [entry for entry in network.cases if entry["case"] in chosen]
    return replace(network, cases=cases, result={**network.result, "regions": summarise(cases)})


def by_size(networks: Sequence[EvaluatedNetwork], regions: Sequence[str], unit: str) -> list[Chart]:
    charts = []
    for region in regions:
        points = []
        for network in networks:
            entries = [entry for entry in by_case(network, region).values() if entry["reference_voxels"]]
            sizes = [(entry["case"], size(entry, "reference_voxels", unit), float(entry["dice"])) for entry in entries]
            points.append((network.name, sizes))
        charts.append(dice_by_size(region, points, unit))
    return [chart for chart in charts if chart is not None]


def agreement(networks: Sequence[EvaluatedNetwork], regions: Sequence[str], unit: str) -> list[Chart]:
    """A Bland-Altman plot for each region and network."""
    charts = []
    for region in regions:
        for number, network in enumerate(networks):
            points = [
                (entry["case"], size(entry, "predicted_voxels", unit), size(entry, "reference_voxels", unit))
                for entry in by_case(network, region).values()
            ]
            charts.append(bland_altman(network.name, number, region, points, unit))
    return [chart for chart in charts if chart is not None]


def about_table(networks: Sequence[EvaluatedNetwork]) -> pd.DataFrame:
    lines = []
    for network in networks:
        result = network.result
        config = result["config"]
        lines.append(
            {
                "name": network.name,
                "network": result["model"],
                "task": result["task"],
                "trained on": str(config.get("dataset", "n/a")),
                "steps": str(config.get("steps", "n/a")),
                "decision offsets": ", ".join(f"{offset:+.2f}" for offset in result.get("offsets", ())) or "none",
                "parameters": f"{result['parameters']:,}",
            }
        )
    return pd.DataFrame(lines)


def footer(networks: Sequence[EvaluatedNetwork]) -> str:
    """How the scores came about, without paths: these may hold names."""
    protocols = " and ".join(dict.fromkeys(network.result["protocol"] for network in networks))
    commit = git_commit()
    versions = package_versions()
    made = f"commit {commit[:12]}{' with changes' if 'changes' in commit else ''}, " if commit else ""
    return f"Scored by {protocols}. Made with {made}torch {versions['torch']}, MONAI {versions['monai']}."
