"""Exported networks next to each other: what they weigh, how fast they are in each runtime, and how good."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.labelled_cases import cases_in_slices
from datasets.slices.slice_folder import SliceFolder
from engine.cost import Cost, blank, measure_in_turns
from engine.evaluation.score import score_cases
from engine.evaluation.summaries import case_means
from engine.export.export import INT8, MODEL
from engine.export.model_card import mean_with_interval
from engine.runtime.network import RUNTIMES
from engine.saved_segmenter import load_exported, load_segmenter
from engine.segmenter import Segmenter
from utils.progress import progress

PYTORCH, ORT, ORT_INT8, OPENVINO = "PyTorch", "ONNX Runtime", "ONNX Runtime, int8", "OpenVINO"
HEADER = """\
| network | parameters | runs in | MB | slices/s | x PyTorch | x {} | Dice |
|---|--:|---|--:|--:|--:|--:|--:|"""


@dataclass(frozen=True)
class Form:
    """One network in one runtime, of a file of so many bytes."""

    segmenter: Segmenter
    size: int


Forms = dict[tuple[str, str], Form]
"""By network and runtime; without int8 where it was not kept, and without OpenVINO where it is not installed."""


def forms_of(name: str, checkpoint: Path, exported: Path) -> Forms:
    """A checkpoint and its exports in the folder `exported`."""
    weights = exported / "model.safetensors"
    forms = {(name, PYTORCH): Form(load_segmenter(checkpoint, torch.device("cpu"))[0], weights.stat().st_size)}
    files = {ORT: (MODEL, RUNTIMES[0]), ORT_INT8: (INT8, RUNTIMES[0])}
    if find_spec("openvino"):
        files[OPENVINO] = (MODEL, RUNTIMES[1])
    for form, (file, runtime) in files.items():
        path = exported / file
        if path.exists():
            forms[name, form] = Form(load_exported(path, runtime)[0], path.stat().st_size)
    return forms


def time_forms(forms: Mapping[tuple[str, str], Form], side: int, repeats: int) -> dict[tuple[str, str], Cost]:
    """Of a forward pass of one slice of `side` pixels, all forms in turn."""
    labels = {"\0".join(key): key for key in forms}
    steps: dict[str, Callable[[], object]] = {}
    for label, key in labels.items():
        network = forms[key].segmenter.network
        image = blank(network, side).to(memory_format=torch.channels_last)
        steps[label] = partial(without_gradients, network, image)
    costs = measure_in_turns(steps, repeats, untimed=3)
    return {labels[label]: cost for label, cost in costs.items()}


def without_gradients(network: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    with torch.no_grad():
        return network(image)


def score_forms(
    forms: Mapping[tuple[str, str], Form], slices: SliceFolder, cases: Sequence[str]
) -> dict[tuple[str, str], np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """The Dice of each case, by form."""
    scores = {}
    for key, form in progress(forms.items(), "scoring", unit="network"):
        labelled = cases_in_slices(slices, cases, form.segmenter.window)
        entries = score_cases(form.segmenter, labelled, distances=False, calibration=False).volumes
        scores[key] = np.array(list(case_means(entries).values()))
    return scores


def write_table(
    forms: Mapping[tuple[str, str], Form],
    costs: Mapping[tuple[str, str], Cost],
    scores: Mapping[tuple[str, str], np.ndarray[tuple[int], np.dtype[np.float64]]],
) -> str:
    """Markdown, a line for each form; speeds next to the same network's in PyTorch and to the first network's."""
    first = next(iter(forms))[0]
    lines = [HEADER.format(first)]
    for name in dict.fromkeys(name for name, _ in forms):
        parameters = sum(each.numel() for each in forms[name, PYTORCH].segmenter.network.parameters())
        for form in (PYTORCH, ORT, ORT_INT8, OPENVINO):
            key = name, form
            if key not in forms:
                lines += [f"| {name} | | {form} | not kept | | | | |"] if form == ORT_INT8 else []
                continue
            seconds = costs[key].median
            against = f"{costs[first, form].median / seconds:.2f}" if (first, form) in costs else ""
            cells = [
                name,
                f"{parameters / 1e6:.2f} M",
                form,
                f"{forms[key].size / 1e6:.1f}",
                f"{1 / seconds:.1f}",
                f"{costs[name, PYTORCH].median / seconds:.2f}",
                against,
                mean_with_interval(scores[key]),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
