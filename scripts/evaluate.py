"""Score a checkpoint on whole volumes of raw cases, or on slices.

    python scripts/evaluate.py --ckpt best.ckpt --inpath data/raw/kits19 --outpath results.json
    python scripts/evaluate.py --ckpt best.ckpt --inpath RAW --splits data/kits/splits.json --outpath results.json
    python scripts/evaluate.py --ckpt best.ckpt --test_data_path data/kits --outpath results.json
    python scripts/evaluate.py --ckpt best.ckpt --test_data_path data/kits --slice_protocol --outpath published.json
    python scripts/evaluate.py --ckpt best.ckpt --test_data_path S --splits S/splits.json --part val --outpath val.json
    python scripts/evaluate.py --ckpt best.ckpt --inpath data/raw/kits19 --outpath results.json --shard 1/3
    python scripts/evaluate.py --ckpt best.ckpt --inpath RAW --outpath results.json --dask tcp://HOST:8786

Writes a summary over cases as JSON, with versions, command and digests of what was read, and, next to it, a CSV file
with one line for each case and region. --report PAGE writes a page to look at as well; scripts/report.py makes one of
several networks.
"""

from __future__ import annotations

import _root  # noqa: F401

from datasets.raw.options import ListOptions, ReadingOptions
from engine.evaluation.options import ALIASES, EvaluationOptions
from engine.options import PredictionOptions
from utils.cluster import ClusterOptions
from utils.errors import UserError, run
from utils.files import make_folder
from utils.options import Parser
from utils.ranks import refuse_several_processes


def main() -> None:
    groups = (EvaluationOptions, ListOptions, PredictionOptions, ReadingOptions, ClusterOptions)
    options, of_list, prediction, reading, of_several = Parser(__doc__, ALIASES).read(*groups)
    if not of_several.shard:
        refuse_several_processes()
    if options.report and (of_several.shard or of_several.dask):
        raise UserError("--report: shows what one process predicts; make the page with scripts/report.py afterwards")
    if options.slice_protocol and prediction.threshold is not None:
        raise UserError("--threshold: the slice protocol has its own, 0.4; leave one of the two out")
    of_several.refuse_no_scheduler()
    make_folder(options.outpath.parent)

    # PyTorch takes seconds to load, and --help should not wait for it.
    from engine.report.evaluation import evaluate

    evaluate(options, of_list, prediction, reading, of_several)


if __name__ == "__main__":
    run(main)
