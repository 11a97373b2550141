"""An evaluation from its options to its files: what scripts/evaluate.py does."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from datasets.labelled_cases import LabelledCase
from datasets.raw.options import ListOptions, ReadingOptions
from engine.evaluation.evaluate import cases_to_score, describe_evaluation, scorer, write_csv
from engine.evaluation.on_cluster import score_on_cluster
from engine.evaluation.options import EvaluationOptions
from engine.evaluation.score import RegionScores
from engine.evaluation.shards import ScoredCases, scored_case
from engine.evaluation.summaries import format_summary
from engine.options import PredictionOptions
from engine.provenance import describe_place
from engine.report.make import publish
from engine.report.scoring import SHOWN_CASES, WorstCases, history_of
from engine.reporting import EvaluatedNetwork
from engine.saved_segmenter import open_segmenter
from utils.cluster import ClusterOptions
from utils.files import write_json
from utils.fingerprint import file_digest, fingerprint
from utils.options import identity
from utils.shards import Place, Shard, take_part


def evaluate(
    options: EvaluationOptions,
    of_list: ListOptions,
    prediction: PredictionOptions,
    reading: ReadingOptions,
    several: ClusterOptions,
) -> None:
    """Score the cases that the options name, or a share of them, and write summary and table once all are scored."""
    started = time.monotonic()
    # With a cluster, this process computes nothing, and need not have the device.
    segmenter, checkpoint = open_segmenter(replace(prediction, device="cpu") if several.dask else prediction)
    if not options.slice_protocol:
        print(f"decision: {segmenter.describe_decision(prediction.threshold)}", flush=True)
    where = describe_place(segmenter.device)
    worst = WorstCases(SHOWN_CASES if options.report else 0, oriented=options.inpath is not None)

    score = scorer(segmenter, options, prediction)

    def show(case: LabelledCase, labels: NDArray[np.uint8], entries: list[RegionScores]) -> None:
        worst.add(case, segmenter, {segmenter.model: labels}, entries)

    def score_here(scored: ScoredCases) -> None:
        began = time.monotonic()
        for case in cases_to_score(segmenter, options, of_list, reading, choose=scored.choose):
            scores = score([case], show=show)
            scored.add(case.name, scored_case(case.name, scores, time.monotonic() - began, where))
            began = time.monotonic()

    def work(share: Shard | None) -> None:
        scored = ScoredCases(place, share, afresh=options.report is not None)
        if several.dask:
            score_on_cluster(several.dask, scored, segmenter, options, of_list, prediction, reading)
        else:
            score_here(scored)
        if share:
            print(f"shard {share}: {len(scored.order)} cases, {scored.already} of them scored before", flush=True)
            return
        seconds = scored.seconds if scored.already or several.dask else time.monotonic() - started
        entries = scored.scores()
        result = describe_evaluation(entries, options.protocol, prediction.ckpt, segmenter, checkpoint, seconds)
        result["scored_on"] = scored.places
        table = options.outpath.with_suffix(".csv")
        write_csv(table, entries.slice_protocol if options.slice_protocol else entries.volumes)
        write_json(options.outpath, result)
        print(f"{options.protocol}, {result['cases']} cases\n{format_summary(result['regions'])}")
        print(f"written: {options.outpath}, {table}")
        if options.report:
            network = EvaluatedNetwork(segmenter.model, result, history_of(prediction.ckpt), entries.volumes)
            publish(options.report, [network], worst.viewer(segmenter, [segmenter.model]))

    place = place_of(options, of_list, prediction, reading)
    take_part(place, several.shard, work)


def place_of(
    options: EvaluationOptions, of_list: ListOptions, prediction: PredictionOptions, reading: ReadingOptions
) -> Place:
    """Where the shards of an evaluation meet, by all that decides its scores."""
    decides = [identity(each) for each in (options, of_list, prediction, reading)]
    for unimportant in ("outpath", "report", "device"):
        for each in decides:
            each.pop(unimportant, None)
    key = fingerprint([file_digest(prediction.ckpt), json.dumps(decides)])
    return Place(options.outpath.parent, options.outpath.name, "is evaluating there", key)
