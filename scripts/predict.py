"""Segment a NIfTI file, a DICOM series, or every case in a folder tree, and write labels with the source's geometry.

    python scripts/predict.py --ckpt best.ckpt --inpath case.nii.gz --outpath predictions
    python scripts/predict.py --ckpt best.ckpt --inpath case.nii.gz --outpath case_labels.nii.gz
    python scripts/predict.py --ckpt best.ckpt --inpath data/raw/kits19 --outpath predictions --largest_component 2
    python scripts/predict.py --ckpt best.ckpt --inpath incoming --outpath predictions --preview --probabilities
    python scripts/predict.py --ckpt best.ckpt --inpath STUDY --outpath predictions --dicom_seg

A folder is read by the checkpoint's layout (KiTS cases without labels too), or, failing that, as NIfTI files in it and
below it, whose folders are kept: those named as segmentations are left out, and nnU-Net's NAME_0000, NAME_0001, ...
are the channels of one case. Where there is no NIfTI, every DICOM series of CT or MR in it is a case (docs/dicom.md).
The written labels are the source's: a tumour network for KiTS writes 2 for tumour.
Beside them volumes.csv and volumes.json say how large each label is, and run.json what was made of which file by what.
Cases that are done are skipped, so that the same command goes on where it was stopped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import _root  # noqa: F401

from datasets.raw.options import DicomOptions, IntensityOptions
from engine.options import PredictionOptions
from engine.prediction.options import OutputOptions
from engine.prediction.outputs import OWN_OUTPUT, Reports, name_outputs, without_own_outputs
from utils.errors import UserError, join_errors, run
from utils.files import make_folder
from utils.lock import only_one
from utils.options import Parser
from utils.ranks import refuse_several_processes

if TYPE_CHECKING:
    from datasets.raw.cases import FoundCases
    from datasets.raw.layout import Case

ALIASES = {"input": "inpath", "output": "outpath"}


def main() -> None:
    refuse_several_processes()
    parser = Parser(__doc__, ALIASES)
    options, prediction, reading, dicom = parser.read(OutputOptions, PredictionOptions, IntensityOptions, DicomOptions)

    # PyTorch takes seconds to load, and --help should not wait for it.
    from datasets.raw.find_cases import find_cases
    from datasets.raw.notes import summarise_notes
    from engine.prediction.record import Record, made_by
    from engine.prediction.run import Pipeline
    from engine.segmenter import open_segmenter

    segmenter, _ = open_segmenter(prediction)
    found = find_cases(options.inpath, segmenter.dataset, segmenter.channel, dicom.series, below=True)
    outputs = name_outputs(choose_cases(found, options), options, dicom.dicom_seg)
    made = made_by(segmenter, prediction, options, reading, dicom)
    seg_files = None
    if dicom.dicom_seg:
        from engine.prediction.seg_files import SegFiles  # highdicom takes seconds to load

        seg_files = SegFiles(segmenter, made["checkpoint"], dicom.labelmap, list(outputs))
    reports = Reports.of(options)
    make_folder(reports.run.parent)
    with only_one(reports.lock, "is predicting there"):
        record = Record(reports, found.root, made)
        todo = {case: files for case, files in outputs.items() if options.overwrite or not record.is_done(case, files)}
        decision = segmenter.describe_decision(prediction.threshold)
        print(f"decision: {decision}", flush=True)
        if len(todo) < len(outputs):
            print(f"{len(outputs) - len(todo)} of {len(outputs)} cases are done (--overwrite predicts them again)")
        if todo:
            record.add_launch(segmenter, decision)
        summary = Pipeline(segmenter, prediction, options, reading, record, seg_files).run(todo)
    for note in [*found.notes, *summarise_notes(summary.notes)]:
        print(f"note: {note}")
    if summary.failed:
        failed = f"{len(summary.failed)} of {len(outputs)} cases could not be predicted"
        raise UserError(f"{failed}: {join_errors(summary.failed)}")


def choose_cases(found: FoundCases, options: OutputOptions) -> list[Case]:
    """All that can be predicted; what lies in the output folder is noted, and a folder of nothing else is refused."""
    cases, own = without_own_outputs([*found, *found.label_not_fetched], options)
    if own:
        found.left_out[OWN_OUTPUT] = own
    if not cases:
        raise UserError(f"{options.inpath}: holds no image outside of {options.outpath}; give another --inpath")
    return cases


if __name__ == "__main__":
    run(main)
