"""Draw what `train_kd.py --record_terms` wrote: each term's value, and its share of the gradient on each stage.

python scripts/plot_terms.py --run checkpoints/hlfd --outpath docs/figures/hlfd_terms.png
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import _root  # noqa: F401

from engine.options import Parser
from utils.errors import UserError, run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from engine.training.term_recorder import Record

TASK = ("focal", "dice")


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="a folder of train_kd.py --record_terms, or the file")
    parser.add_argument("--outpath", type=Path, required=True, help="picture to write, such as terms.png")
    args = parser.parse_args()

    from engine.training.term_recorder import read_records
    from utils.files import atomic_write

    path = args.run / "terms.jsonl" if args.run.is_dir() else args.run
    if not path.is_file():
        raise UserError(f"{path}: no such file; train with train_kd.py --record_terms 10")
    records = read_records(path)
    if not records:
        raise UserError(f"{path}: holds no step yet; train with train_kd.py --record_terms 10")
    figure = draw(records)
    kinds = figure.canvas.get_supported_filetypes()
    if args.outpath.suffix.lower().removeprefix(".") not in kinds:
        raise UserError(f"--outpath {args.outpath}: must end in one of {', '.join(f'.{kind}' for kind in kinds)}")
    with atomic_write(args.outpath) as temporary:
        figure.savefig(temporary, dpi=130)
    print(args.outpath)


def draw(records: list[Record]) -> Figure:
    """Left the values; then, stage by stage, each term's share of the sum of the gradient norms."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    steps = [record["step"] for record in records]
    terms = list(records[0]["values"])
    # Batch norm and convolution of a stem are one stage to the eye; stages without a distillation term tell nothing.
    stages = [
        stage
        for stage in records[0]["norms"][terms[0]]
        if "bn" not in stage and any(r["norms"][t][stage] > 0 for r in records for t in terms if t not in TASK)
    ]
    others = [term for term in terms if term not in TASK]
    warm = plt.get_cmap("viridis")(np.linspace(0, 0.95, max(len(others), 1)))
    colours = {"focal": "#bbbbbb", "dice": "#777777", **dict(zip(others, warm, strict=True))}

    figure, axes = plt.subplots(
        1, 1 + len(stages), figsize=(4 + 2.6 * len(stages), 3.6), layout="constrained", squeeze=False
    )
    values, *shares = axes[0]
    for term in terms:
        values.plot(steps, [record["values"][term] for record in records], color=colours[term], label=term)
    values.set(title="weighted value", xlabel="step", yscale="log")
    for stage, panel in zip(stages, shares, strict=True):
        norms = np.array([[record["norms"][term][stage] for record in records] for term in terms])
        panel.stackplot(
            steps, norms / norms.sum(axis=0).clip(1e-12), colors=[colours[term] for term in terms], labels=terms
        )
        panel.set(title=stage, xlabel="step", ylim=(0, 1), xlim=(steps[0], steps[-1]))
    for panel in shares[:1]:
        panel.set_ylabel("share of the gradient norms")
    figure.legend(*axes[0, -1].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


if __name__ == "__main__":
    run(main)
