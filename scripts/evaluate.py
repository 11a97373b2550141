"""Score a checkpoint on whole volumes of raw cases, or on slices.

    python scripts/evaluate.py --ckpt best.ckpt --inpath data/raw/kits19 --outpath results.json
    python scripts/evaluate.py --ckpt best.ckpt --inpath RAW --splits data/kits/splits.json --outpath results.json
    python scripts/evaluate.py --ckpt best.ckpt --test_data_path data/kits --outpath results.json
    python scripts/evaluate.py --ckpt best.ckpt --test_data_path data/kits --slice_protocol --outpath published.json
    python scripts/evaluate.py --ckpt best.ckpt --test_data_path S --splits S/splits.json --part val --outpath val.json

Writes a summary over cases as JSON, with versions, command and digests of what was read, and, next to it, a CSV file
with one line for each case and region. --report PAGE writes a page to look at as well; scripts/report.py makes one of
several networks.
"""

from __future__ import annotations

import time

import _root  # noqa: F401

from datasets.raw.options import ListOptions, ReadingOptions
from engine.evaluation.options import ALIASES, EvaluationOptions
from engine.options import PredictionOptions
from utils.errors import UserError, run
from utils.files import make_folder, write_json
from utils.options import Parser
from utils.ranks import refuse_several_processes


def main() -> None:
    refuse_several_processes()
    groups = (EvaluationOptions, ListOptions, PredictionOptions, ReadingOptions)
    options, of_list, prediction, reading = Parser(__doc__, ALIASES).read(*groups)
    if options.slice_protocol and prediction.threshold is not None:
        raise UserError("--threshold: the slice protocol has its own, 0.4; leave one of the two out")
    make_folder(options.outpath.parent)

    # PyTorch takes seconds to load, and --help should not wait for it.
    from engine.evaluation.evaluate import cases_to_score, describe_evaluation, write_csv
    from engine.evaluation.score import score_cases
    from engine.evaluation.summaries import format_summary
    from engine.report.make import publish
    from engine.report.scoring import SHOWN_CASES, WorstCases, history_of
    from engine.reporting import EvaluatedNetwork
    from engine.segmenter import open_segmenter

    started = time.monotonic()
    segmenter, checkpoint = open_segmenter(prediction)
    if not options.slice_protocol:
        print(f"decision: {segmenter.describe_decision(prediction.threshold)}", flush=True)
    worst = WorstCases(SHOWN_CASES if options.report else 0, oriented=options.inpath is not None)
    scores = score_cases(
        segmenter,
        cases_to_score(segmenter, options, of_list, reading),
        batch_size=prediction.batch_size,
        threshold=prediction.threshold,
        volumes=not options.slice_protocol,
        slice_protocol=options.slice_protocol,
        show=lambda case, labels, entries: worst.add(case, segmenter, {segmenter.model: labels}, entries),
    )
    seconds = time.monotonic() - started
    result = describe_evaluation(scores, options.protocol, prediction.ckpt, segmenter, checkpoint, seconds)
    table = options.outpath.with_suffix(".csv")
    write_csv(table, scores.slice_protocol if options.slice_protocol else scores.volumes)
    write_json(options.outpath, result)
    print(f"{options.protocol}, {result['cases']} cases\n{format_summary(result['regions'])}")
    print(f"written: {options.outpath}, {table}")
    if options.report:
        network = EvaluatedNetwork(segmenter.model, result, history_of(prediction.ckpt), scores.volumes)
        publish(options.report, [network], worst.viewer(segmenter, [segmenter.model]))


if __name__ == "__main__":
    run(main)
