"""Draw what `train_kd.py --record_terms` wrote: each term's value, and its share of the gradient on each stage.

python scripts/plot_terms.py --checkpoint_path checkpoints/hlfd --outpath docs/figures/hlfd_terms.png
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import _root  # noqa: F401

from utils.errors import UserError, run
from utils.options import Parser, option

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from engine.training.term_recorder import TermRecord

ALIASES = {"run": "checkpoint_path"}
SEGMENTATION = {"focal": "#bbbbbb", "dice": "#777777"}
"""The terms that are no distillation, in grey."""


@dataclass(frozen=True)
class PlotOptions:
    """plot"""

    checkpoint_path: Path = option(MISSING, "a folder of train_kd.py --record_terms, or the terms.jsonl in it")
    outpath: Path = option(MISSING, "picture to write, such as terms.png")


def main() -> None:
    (options,) = Parser(__doc__, ALIASES).read(PlotOptions)

    # PyTorch takes seconds to load, and --help should not wait for it.
    from engine.reporting import save_figure
    from engine.training.term_recorder import read_records

    path = options.checkpoint_path
    path = path / "terms.jsonl" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"{path}: no such file; train with train_kd.py --record_terms 10")
    records = read_records(path)
    if not records:
        raise UserError(f"{path}: holds no step yet; train with train_kd.py --record_terms 10")
    save_figure(draw(records), options.outpath)
    print(options.outpath)


def draw(records: Sequence[TermRecord]) -> Figure:
    """Left the values; then, stage by stage, each term's share of the sum of the gradient norms."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    steps = [record["step"] for record in records]
    terms = list(records[0]["values"])
    distillation = [term for term in terms if term not in SEGMENTATION]
    shades = plt.get_cmap("viridis")(np.linspace(0, 0.95, max(len(distillation), 1)))
    colours = {**SEGMENTATION, **dict(zip(distillation, shades, strict=True))}
    # A stem's batch norm is left out: it would look like its convolution. So are stages that only segmentation reaches.
    stages = [
        stage
        for stage in records[0]["norms"][terms[0]]
        if "bn" not in stage and any(record["norms"][term][stage] > 0 for record in records for term in distillation)
    ]
    size = (4 + 2.6 * len(stages), 3.6)
    figure, axes = plt.subplots(1, 1 + len(stages), figsize=size, layout="constrained", squeeze=False)
    values, *shares = axes[0]
    for term in terms:
        values.plot(steps, [record["values"][term] for record in records], color=colours[term], label=term)
    values.set(title="weighted value", xlabel="step", yscale="log")
    for stage, panel in zip(stages, shares, strict=True):
        norms = np.array([[record["norms"][term][stage] for record in records] for term in terms])
        shown = norms / norms.sum(axis=0).clip(1e-12)
        panel.stackplot(steps, shown, colors=[colours[term] for term in terms], labels=terms)
        panel.set(title=stage, xlabel="step", ylim=(0, 1), xlim=(steps[0], steps[-1]))
    if shares:
        shares[0].set_ylabel("share of the gradient norms")
    figure.legend(*axes[0, -1].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


if __name__ == "__main__":
    run(main)
