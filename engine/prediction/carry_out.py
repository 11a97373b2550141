"""Predicting every case that is not done yet: what predict.py and answer.py share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from datasets.raw.cases import FoundCases
from datasets.raw.find_cases import find_cases
from datasets.raw.layout import Case
from datasets.raw.notes import summarise_notes
from datasets.raw.options import DicomOptions, IntensityOptions
from engine.options import PredictionOptions
from engine.prediction.on_cluster import ClusterPipeline
from engine.prediction.options import OutputOptions
from engine.prediction.outputs import OWN_OUTPUT, Reports, name_outputs, without_own_outputs
from engine.prediction.record import Record
from engine.prediction.run import Pipeline, Summary, open_seg_files
from engine.segmenter import Segmenter
from utils.cluster import ClusterOptions
from utils.errors import UserError, join_errors
from utils.fingerprint import fingerprint
from utils.shards import Place, Shard, take_part

ONE_PROCESS = ClusterOptions()


def predict_cases(
    segmenter: Segmenter,
    made: Mapping[str, Any],
    prediction: PredictionOptions,
    options: OutputOptions,
    reading: IntensityOptions,
    dicom: DicomOptions,
    several: ClusterOptions = ONE_PROCESS,
    open_network: Callable[[], Segmenter] | None = None,
) -> None:
    """Predict what is not done by the same, write it, and print what is unusual; of a shard, its share of the cases.

    made: what decides the results besides the image (`made_by`); open_network: makes, on the workers of a cluster, the
    segmenter anew. UserError that names the cases that failed.
    """
    found = find_cases(options.inpath, segmenter.dataset, segmenter.channel, dicom.series, below=True)
    outputs = name_outputs(choose_cases(found, options), options, dicom.dicom_seg)
    seg_files = open_seg_files(segmenter, made, dicom, list(outputs))
    place = place_of(Reports.of(options), made)

    def work(share: Shard | None) -> Summary:
        record = Record(Reports.of(options), place, found.root, made, share)
        mine = dict(share.of(list(outputs.items()))) if share else outputs
        todo = {case: files for case, files in mine.items() if options.overwrite or not record.is_done(case, files)}
        decision = segmenter.describe_decision(prediction.threshold)
        print(f"decision: {decision}", flush=True)
        if len(todo) < len(mine):
            print(f"{len(mine) - len(todo)} of {len(mine)} cases are done (--overwrite predicts them again)")
        if several.dask and open_network:
            at_work = ClusterPipeline(
                segmenter, prediction, options, reading, record, address=several.dask, open_network=open_network,
                dicom=dicom,
            )  # fmt: skip
            return at_work.run(todo)
        if todo:
            record.add_launch(segmenter, decision)
        return Pipeline(segmenter, prediction, options, reading, record, seg_files).run(todo)

    summary = take_part(place, several.shard, work)
    for note in [*found.notes, *summarise_notes(summary.notes)]:
        print(f"note: {note}")
    if summary.failed:
        failed = f"{len(summary.failed)} of {len(outputs)} cases could not be predicted"
        raise UserError(f"{failed}: {join_errors(summary.failed)}")


def place_of(reports: Reports, made: Mapping[str, Any]) -> Place:
    """Where the shards of a prediction meet."""
    return Place(reports.run.parent, reports.run.name, "is predicting there", fingerprint([json.dumps(dict(made))]))


def choose_cases(found: FoundCases, options: OutputOptions) -> list[Case]:
    """All that can be predicted; what lies in the output folder is noted, and a folder of nothing else is refused."""
    cases, own = without_own_outputs([*found, *found.label_not_fetched], options)
    if own:
        found.left_out[OWN_OUTPUT] = own
    if not cases:
        raise UserError(f"{options.inpath}: holds no image outside of {options.outpath}; give another --inpath")
    return cases
