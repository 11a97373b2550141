"""The page that goes with a network's weights: what it is, on what it was trained, how good it is, and its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.benchmark.statistics import bootstrap_interval
from engine.cost import format_size
from engine.evaluation.evaluate import CHECKPOINT
from engine.evaluation.results import read_results
from engine.segmenter import Segmenter
from utils.errors import UserError
from utils.fingerprint import file_digest

SHOWN = {
    "dice": "Dice",
    "published_voe": "VOE, as published",
    "voe": "VOE",
    "rvd": "RVD",
    "hd95": "HD95, mm",
    "assd": "ASSD, mm",
    "nsd": "NSD at 1 mm",
    "lesion_f1": "lesion F1",
}
LIMITS = """\
This is no medical device. It was not approved by any authority, and nothing that it shows may decide about a patient.

It was trained and scored on the data set above. Other scanners, protocols, contrast phases, patients and diseases than
that holds can make it fail without a sign; score it on cases of your own before you rely on it. It looks at one axial
slice at a time, sees nothing outside its frame, and knows no other structure than its labels."""
NEEDED = ("model", "task", "protocol", "cases", "seen_in_training")
NO_SCORES = "This network was not scored for this card; `--results` of scripts/export.py shows scores."
NO_LICENCE = "Not stated. The terms of the data bind what was trained on it; the code that trained it is under MIT."


def model_card(
    segmenter: Segmenter,
    content: Mapping[str, Any],
    checkpoint: Path,
    results: Path | None = None,
    licence: str | None = None,
) -> str:
    """Markdown; content: as `describe_export` gives it, of the checkpoint.

    results: of scripts/evaluate.py, its CSV file beside it; UserError if they are of another network.
    """
    facts = [f"| {name} | {text} |" for name, text in describe_network(segmenter, content).items() if text]
    title = f"# {segmenter.model}: {segmenter.label_map.name} of {segmenter.dataset}"
    parts = {
        title: "\n".join(["| | |", "|---|---|", *facts]),
        "## Scores": score_table(segmenter, checkpoint, results) if results else NO_SCORES,
        "## Intended use": "Research: to compare methods of distillation, and as a start for other networks.",
        "## Limits": LIMITS,
        "## Licence": licence or NO_LICENCE,
    }
    return "\n\n".join(f"{heading}\n\n{text}" for heading, text in parts.items()) + "\n"


def describe_network(segmenter: Segmenter, content: Mapping[str, Any]) -> dict[str, str | None]:
    """The card's first table: a name and a text, None where nothing is known."""
    config, cases, cost, codes = (content[key] for key in ("config", "cases", "cost", "codes"))
    parameters, gmacs = format_size(cost["parameters"], cost["gmacs"])
    labels = [
        f"{name} (label {values[0]}, {codes[str(values[0])]['scheme']} {codes[str(values[0])]['value']})"
        for name, values in zip(segmenter.label_map.classes, segmenter.label_map.labels, strict=True)
    ]
    window = "0.5 and 99.5 percentiles of each volume"
    if segmenter.window is not None:
        low, high = segmenter.window
        window = f"{low:g} to {high:g}{' HU' if segmenter.hounsfield else ''}"
    teacher = config.get("teacher")
    command = content["trained_by"]["command"]
    return {
        "network": f"`{segmenter.model}`, {parameters} parameters, {gmacs} GMACs at {cost['gmacs_at']} pixels",
        "distilled from": f"a teacher whose weights have the digest `{teacher}`" if teacher else "no teacher",
        "trained with": f"`{content['loss'] or ' '.join(config.get('kd', ['segmentation loss']))}`",
        "data set": f"{segmenter.dataset}, task {segmenter.label_map.name}",
        "labels": ", ".join(labels),
        "window": window,
        "frame": frame_in_words(segmenter),
        "cases": f"{len(cases['train'])} trained it, {len(cases['val'])} chose its weights and its decision",
        "decision": segmenter.describe_decision(),
        "training command": f"`{command}`" if command else None,
    }


def frame_in_words(segmenter: Segmenter) -> str:
    """How a slice becomes the network's input."""
    frame = segmenter.frame
    size = f"slices resized to {frame.size} x {frame.size} pixels" if frame.size else "slices of any size"
    return f"{size}, cropped to {frame.side} x {frame.side}" if frame.side not in (0, frame.size) else size


def score_table(segmenter: Segmenter, checkpoint: Path, results: Path) -> str:
    """Each region's scores: mean and 95 % interval over cases; UserError for the results of another network."""
    content, entries = read_results(results, NEEDED, ("case", "region"))
    other = {"model": segmenter.model, "task": segmenter.label_map.name}
    for key, own in other.items():
        if content[key] != own:
            raise UserError(
                f"{results}: are of {key} {content[key]}, and this network's is {own}; give its own results"
            )
    digests = content.get("digests")
    if not isinstance(digests, dict) or digests.get(CHECKPOINT) != file_digest(checkpoint):
        raise UserError(f"{results}: are of another file than {checkpoint}; score that with evaluate.py")
    metrics = [metric for metric in SHOWN if metric in entries and entries[metric].notna().any()]
    seen = content["seen_in_training"]
    lines = [
        f"{content['protocol'][:1].upper()}{content['protocol'][1:]} of {content['cases']} cases, mean with the 95 % "
        "bootstrap interval over cases"
        + (f"; {len(seen)} of them chose or trained the network, so these scores flatter it.\n" if seen else ".\n"),
        "| region | " + " | ".join(SHOWN[metric] for metric in metrics) + " |",
        "|---|" + "--:|" * len(metrics),
    ]
    for region, of_region in entries.groupby("region", sort=False):
        cells = [mean_with_interval(of_region[metric].to_numpy(float)) for metric in metrics]
        lines.append(f"| {region} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def mean_with_interval(values: Sequence[float] | np.ndarray[Any, np.dtype[np.float64]]) -> str:
    """Of what is defined; the interval where there are two or more."""
    defined = np.array([value for value in values if np.isfinite(value)])
    if not len(defined):
        return "undefined"
    if len(defined) == 1:
        return f"{defined[0]:.3f}"
    low, high = bootstrap_interval([defined[None]])
    return f"{defined.mean():.3f} ({low:.3f} to {high:.3f})"
