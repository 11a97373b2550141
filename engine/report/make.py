"""What scripts/report.py does: score checkpoints on raw cases, or read results, and write the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets.raw.options import ListOptions, ReadingOptions
from engine.evaluation.evaluate import cases_to_score
from engine.evaluation.results import read_results
from engine.names import print_hidden
from engine.report.case_tables import regions_of
from engine.report.options import ReportOptions
from engine.report.page import Around, Viewer, write_page
from engine.report.scoring import WorstCases, history_of, load_networks, score_networks
from engine.reporting import EvaluatedNetwork, format_table, results_table
from utils.errors import UserError

WANTED = ("protocol", "regions", "model", "task", "seen_in_training", "config", "parameters", "gmacs")
COLUMNS = ("case", "region", "reference_voxels", "predicted_voxels", "dice", "rvd", "hd95_mm")


def make_report(options: ReportOptions, of_list: ListOptions, reading: ReadingOptions) -> None:
    """Write the page, and print where it is."""
    viewer = Viewer()
    if options.results:
        networks = [read_network(*pair) for pair in zip(options.results, options.network_names, strict=True)]
    else:
        loaded = load_networks(options.ckpt, options.network_names, options.device)
        worst = WorstCases(options.viewer_cases)
        cases = cases_to_score(loaded[0].segmenter, options.of_cases, of_list, reading)
        networks = score_networks(loaded, cases, worst, options.batch_size)
        viewer = worst.viewer(loaded[0].segmenter, [network.name for network in networks])
    for region in regions_of(networks):
        print(f"\n{format_table(results_table(networks, region))}")
    publish(options.outpath, networks, viewer, options.title)


def publish(path: Path, networks: Sequence[EvaluatedNetwork], viewer: Viewer, title: str | None = None) -> None:
    """Write the page with a title and a notice of its own, and print where it is and the names that it hides."""
    tasks = " and ".join(dict.fromkeys(f"{network.result['task']}" for network in networks))
    cases = len({entry["case"] for network in networks for entry in network.cases})
    names = ", ".join(network.name for network in networks)
    notice = f"{cases} cases, task {tasks}. For research; not a medical device."
    shown = write_page(path, networks, viewer, Around(title or f"{names}: scores and failures", notice))
    print_hidden(shown)
    print(f"written: {path} ({path.stat().st_size / 1e6:.1f} MB)")


def read_network(path: Path, name: str) -> EvaluatedNetwork:
    """What scripts/evaluate.py wrote, of whole volumes or archived slices; UserError for anything else."""
    result, table = read_results(path, WANTED, COLUMNS)
    if result["protocol"] == "slice protocol":
        raise UserError(f"{path}: is of the slice protocol, which has no whole cases; evaluate without it")
    lines: list[dict[str, Any]] = table.to_dict("records")
    return EvaluatedNetwork(name, result, history_of(Path(result["checkpoint"])), lines)
