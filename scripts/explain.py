"""Show where networks look when they segment, and measure how much of that lies inside the target.

    python scripts/explain.py --ckpt teacher/best.ckpt alone/best.ckpt hlfd/best.ckpt --names teacher alone HLFD \
        --test_data_path data/kits --outpath runs/explain
    python scripts/explain.py --ckpt best.ckpt --inpath data/raw/kits19 --splits data/kits/splits.json \
        --layers e5 d2 --method gcam --slices 00012:47 --outpath runs/explain

Grad-CAM and Grad-CAM++ come from medcam. Their mass inside the target is averaged over every slice that holds it, next
to the share of the area that the target has: what a map without any preference would reach.

Left in OUTPATH: index.html, a PNG file for each slice and method, links.png (the stages of the first and the last
network, and what HLFD compares), attention.csv (a line for each case, network, stage and method) and attention.json.
"""

from __future__ import annotations

import _root  # noqa: F401

from datasets.raw.options import ListOptions, ReadingOptions
from engine.evaluation.options import ALIASES
from engine.explain.options import ExplainOptions
from utils.errors import run
from utils.options import Parser
from utils.ranks import refuse_several_processes


def main() -> None:
    refuse_several_processes()
    options, of_list, reading = Parser(__doc__, ALIASES).read(ExplainOptions, ListOptions, ReadingOptions)

    # PyTorch takes seconds to load, and --help should not wait for it.
    from engine.explain.carry_out import explain

    explain(options, of_list, reading)


if __name__ == "__main__":
    run(main)
