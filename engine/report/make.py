"""What scripts/report.py does: score checkpoints on raw cases, or read results, and write the page."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datasets.raw.options import ListOptions, ReadingOptions
from engine.evaluation.evaluate import CHECKPOINT, cases_to_score
from engine.evaluation.results import read_results
from engine.names import print_hidden
from engine.provenance import RUN_FILE, digest_of, of_networks, read_launches, write_shown_run_file
from engine.report.attention import AttentionSection, read_attention
from engine.report.attention_tables import ATTENTION_FILE
from engine.report.case_tables import regions_of
from engine.report.options import ReportOptions
from engine.report.page import Around, Viewer, write_page
from engine.report.scoring import WorstCases, history_of, load_networks, score_networks
from engine.reporting import EvaluatedNetwork, format_table, results_table
from utils.errors import UserError
from utils.fingerprint import file_digest

WANTED = ("protocol", "regions", "model", "task", "seen_in_training", "config", "parameters", "gmacs")
COLUMNS = ("case", "region", "reference_voxels", "predicted_voxels", "dice", "rvd", "hd95_mm")


@dataclass(frozen=True)
class Content:
    """What a page is made of: networks with their scores, what the viewer shows, and where the networks look.

    digests: of the files that were read, by the names of cases and others; device: of the networks, if they ran.
    """

    networks: Sequence[EvaluatedNetwork]
    viewer: Viewer
    attention: AttentionSection | None
    digests: Mapping[str, str]
    device: torch.device | None


def make_report(options: ReportOptions, of_list: ListOptions, reading: ReadingOptions) -> None:
    """Write the page and its run file, and print where the page is."""
    started = time.monotonic()
    run_file = options.outpath.with_suffix(f".{RUN_FILE}")
    read_launches(run_file)
    content = of_results(options) if options.results else of_checkpoints(options, of_list, reading)
    networks = content.networks
    for region in regions_of(networks):
        print(f"\n{format_table(results_table(networks, region))}")
    shown = publish(options.outpath, networks, content.viewer, options.title, content.attention)
    digests = dict(content.digests)
    if options.attention:
        digests[ATTENTION_FILE] = file_digest(options.attention / ATTENTION_FILE)
    classes = networks[0].result.get("classes", ())
    write_shown_run_file(run_file, content.device, digests, classes, time.monotonic() - started, shown)


def of_checkpoints(options: ReportOptions, of_list: ListOptions, reading: ReadingOptions) -> Content:
    """Score the networks on the cases; that the attention is theirs is known before."""
    digests = dict(zip(options.network_names, map(file_digest, options.ckpt), strict=True))
    attention = read_attention(options.attention, digests) if options.attention else None
    loaded = load_networks(options.ckpt, options.network_names, options.device)
    first = loaded[0].segmenter
    worst = WorstCases(options.viewer_cases)
    networks = score_networks(
        loaded, cases_to_score(first, options.of_cases, of_list, reading), worst, options.batch_size
    )
    of_cases = {name: digest for name, digest in networks[0].result["digests"].items() if name != CHECKPOINT}
    viewer = worst.viewer(first, options.network_names)
    return Content(networks, viewer, attention, {**of_networks(digests), **of_cases}, first.device)


def of_results(options: ReportOptions) -> Content:
    """Read what scripts/evaluate.py wrote."""
    paths = dict(zip(options.network_names, options.results, strict=True))
    networks = [read_network(path, name) for name, path in paths.items()]
    checkpoints = {network.name: checkpoint_digest(network) for network in networks}
    attention = read_attention(options.attention, checkpoints) if options.attention else None
    digests = {f"results of {name}": digest_of([path, path.with_suffix(".csv")]) for name, path in paths.items()}
    return Content(networks, Viewer(), attention, digests, None)


def checkpoint_digest(network: EvaluatedNetwork) -> str:
    """Of the file that was scored; "" where the results do not tell."""
    digests = network.result.get("digests")
    return str(digests.get(CHECKPOINT, "")) if isinstance(digests, dict) else ""


def publish(
    path: Path,
    networks: Sequence[EvaluatedNetwork],
    viewer: Viewer,
    title: str | None = None,
    attention: AttentionSection | None = None,
) -> dict[str, str]:
    """Write the page with a title and a notice of its own, and print where it is and the names that it hides.

    Returns case -> its name in the page.
    """
    tasks = " and ".join(dict.fromkeys(f"{network.result['task']}" for network in networks))
    cases = len({entry["case"] for network in networks for entry in network.cases})
    names = ", ".join(network.name for network in networks)
    notice = f"{cases} cases, task {tasks}. For research; not a medical device."
    around = Around(title or f"{names}: scores and failures", notice, attention=attention)
    shown = write_page(path, networks, viewer, around)
    print_hidden(shown)
    print(f"written: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return shown


def read_network(path: Path, name: str) -> EvaluatedNetwork:
    """What scripts/evaluate.py wrote, of whole volumes or archived slices; UserError for anything else."""
    result, table = read_results(path, WANTED, COLUMNS)
    if result["protocol"] == "slice protocol":
        raise UserError(f"{path}: is of the slice protocol, which has no whole cases; evaluate without it")
    lines: list[dict[str, Any]] = table.to_dict("records")
    return EvaluatedNetwork(name, result, history_of(Path(result["checkpoint"])), lines)
