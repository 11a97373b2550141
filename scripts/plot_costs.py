"""Draw Dice against the time of training from a benchmark's results.csv.

python scripts/plot_costs.py --results runs/benchmark/results.csv --model raunet --dice 0.874 --outpath costs.png
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path

import _root  # noqa: F401

from utils.errors import UserError, run
from utils.numbers import ClosedShare
from utils.options import Parser, option

NUMBERS = ("dice", "training_time")


@dataclass(frozen=True)
class PlotOptions:
    """figure"""

    results: Path = option(MISSING, "a results.csv of scripts/benchmark.py")
    model: str = option(MISSING, "the teacher's network")
    dice: ClosedShare = option(MISSING, "the teacher's Dice on the same cases")
    outpath: Path = option(MISSING, "picture to write, such as costs.png")


def main() -> None:
    (options,) = Parser(__doc__).read(PlotOptions)

    import pandas as pd

    from engine.benchmark.figure import cost_figure
    from engine.reporting import save_figure

    if not options.results.is_file():
        raise UserError(f"{options.results}: no such file; scripts/benchmark.py writes results.csv")
    try:
        runs = pd.read_csv(options.results)
    except (OSError, ValueError) as error:  # pandas' errors are ValueErrors
        reason = " ".join(str(error).split())
        raise UserError(
            f"{options.results}: cannot be read as CSV ({reason}); give a benchmark's results.csv"
        ) from None
    if missing := {"student", "method", *NUMBERS} - set(runs):
        raise UserError(f"{options.results}: has no column {min(missing)}; it is not a benchmark's results.csv")
    if runs.empty:
        raise UserError(f"{options.results}: holds no run; wait for the first of scripts/benchmark.py")
    for name in NUMBERS:
        if not pd.api.types.is_numeric_dtype(runs[name]):
            raise UserError(
                f"{options.results}: its column {name} does not hold numbers; give a benchmark's results.csv"
            )
    save_figure(cost_figure(runs, options.model, options.dice), options.outpath)
    print(options.outpath)


if __name__ == "__main__":
    run(main)
