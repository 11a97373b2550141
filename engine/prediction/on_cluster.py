"""Predictions on a Dask cluster: each worker has the network once and writes the files of one case after another.

What is done is recorded by the process that gave them the cases, as if it had predicted these itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from datasets.raw.layout import Case
from datasets.raw.options import DicomOptions, IntensityOptions
from engine.options import PredictionOptions
from engine.prediction.options import OutputOptions
from engine.prediction.outputs import Outputs
from engine.prediction.record import CaseRecord, Record
from engine.prediction.run import Pipeline, Summary, open_seg_files, print_case
from engine.provenance import describe_place
from engine.saved_segmenter import open_segmenter
from engine.segmenter import Segmenter
from utils.cluster import run_on_cluster
from utils.errors import UserError
from utils.files import remove_unfinished
from utils.progress import progress


class Job(NamedTuple):
    """A case to predict; before: what was recorded of it, by its name."""

    case: Case
    outputs: Outputs
    before: Mapping[str, Any]


class Done(NamedTuple):
    """What is to be recorded of a case: its entry, and where it was made: device, packages and machine."""

    content: Mapping[str, Any]
    where: Mapping[str, Any]


@dataclass(kw_only=True)
class ClusterPipeline(Pipeline):
    """The pipeline at the address of a cluster; open_network: makes, on a worker, a segmenter as this one."""

    address: str
    open_network: Callable[[], Segmenter]
    dicom: DicomOptions

    def run(self, outputs: Mapping[Case, Outputs]) -> Summary:
        """Predict the cases; one that fails twice leaves no files, and the others go on."""
        record = self.record
        assert isinstance(record, Record)
        make = partial(
            Predictor, self.open_network, self.prediction, self.options, self.reading, self.dicom, record.root,
            record.made_by,
        )  # fmt: skip
        before = record.cases
        jobs = [
            Job(case, files, {case.name: before[case.name]} if case.name in before else {})
            for case, files in outputs.items()
        ]
        results = run_on_cluster(self.address, make, jobs, lambda job: str(job.case.image))
        decision = self.segmenter.describe_decision(self.prediction.threshold)
        launches: dict[str, int] = {}
        try:
            for job, done in progress(results, "segmenting", total=len(jobs), unit="case"):
                if isinstance(done, UserError):
                    self._fail(job.case, job.outputs, done)
                    continue
                where = str(done.where)
                if where not in launches:
                    launches[where] = record.add_launch(self.segmenter, decision, done.where)
                record.add(job.case, {**done.content, "launch": launches[where]})
                self.summary.notes[job.case.name] = done.content["notes"]
                print_case(job.outputs, done.content["labels"])
        finally:
            record.save()
        _remove_unfinished(outputs)
        return self.summary


class Predictor:
    """On a worker: predicts one case after another with the network that it has opened."""

    def __init__(
        self,
        open_network: Callable[[], Segmenter],
        prediction: PredictionOptions,
        options: OutputOptions,
        reading: IntensityOptions,
        dicom: DicomOptions,
        root: Path,
        made_by: Mapping[str, Any],
    ) -> None:
        self.segmenter = open_network()
        self.prediction, self.options, self.reading = prediction, options, reading
        self.seg_files = open_seg_files(self.segmenter, made_by, dicom)
        self.root, self.made_by = root, made_by
        self.where = describe_place(self.segmenter.device)

    def __call__(self, job: Job) -> Done:
        """UserError if the case fails."""
        record = CaseRecord(self.root, self.made_by, job.before)
        pipeline = Pipeline(self.segmenter, self.prediction, self.options, self.reading, record, self.seg_files)
        if failed := pipeline.run({job.case: job.outputs}).failed:
            raise UserError(failed[0])
        return Done(record.cases[job.case.name], self.where)


def open_one(prediction: PredictionOptions) -> Segmenter:
    """As `open_network`, in a partial: the segmenter in a checkpoint."""
    return open_segmenter(prediction)[0]


def _remove_unfinished(outputs: Mapping[Case, Outputs]) -> None:
    """What workers that were killed were writing."""
    names: dict[Path, set[str]] = {}
    for files in outputs.values():
        for path in files.files:
            names.setdefault(path.parent, set()).add(path.name)
    for folder, written in names.items():
        remove_unfinished(folder, written)
