"""One self-contained page about one or several networks: scores, failures first, a viewer of the cases, charts.

    python scripts/report.py --ckpt teacher/best.ckpt student/best.ckpt --inpath data/raw/kits19 --outpath report.html
    python scripts/report.py --ckpt best.ckpt --inpath RAW --splits data/kits/splits.json --outpath report.html
    python scripts/report.py --results teacher/results.json student/results.json --outpath report.html

The page loads nothing from elsewhere and may be sent to others: cases whose names are more than a number are called
case A1, case A2, ..., and paths are left out. The viewer shows the images themselves; --viewer_cases 0 leaves it out.
"""

from __future__ import annotations

import _root  # noqa: F401

from datasets.raw.options import ListOptions, ReadingOptions
from engine.report.options import ALIASES, ReportOptions
from utils.errors import run
from utils.files import make_folder
from utils.options import Parser
from utils.ranks import refuse_several_processes


def main() -> None:
    refuse_several_processes()
    options, of_list, reading = Parser(__doc__, ALIASES).read(ReportOptions, ListOptions, ReadingOptions)
    make_folder(options.outpath.parent)

    # PyTorch takes seconds to load, and --help should not wait for it.
    from engine.report.make import make_report

    make_report(options, of_list, reading)


if __name__ == "__main__":
    run(main)
