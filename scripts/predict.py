"""Segment a NIfTI file, a DICOM series, or every case in a folder tree, and write labels with the source's geometry.

    python scripts/predict.py --ckpt best.ckpt --inpath case.nii.gz --outpath predictions
    python scripts/predict.py --ckpt best.ckpt --inpath case.nii.gz --outpath case_labels.nii.gz
    python scripts/predict.py --ckpt best.ckpt --inpath data/raw/kits19 --outpath predictions --largest_component 2
    python scripts/predict.py --ckpt best.ckpt --inpath incoming --outpath predictions --preview --probabilities
    python scripts/predict.py --ckpt best.ckpt --inpath STUDY --outpath predictions --dicom_seg
    python scripts/predict.py --ckpt best.ckpt --inpath incoming --outpath predictions --shard 1/3
    python scripts/predict.py --ckpt best.ckpt --inpath incoming --outpath predictions --dask tcp://HOST:8786

A folder is read by the checkpoint's layout (KiTS cases without labels too), or, failing that, as NIfTI files in it and
below it, whose folders are kept: those named as segmentations are left out, and nnU-Net's NAME_0000, NAME_0001, ...
are the channels of one case. Where there is no NIfTI, every DICOM series of CT or MR in it is a case (docs/dicom.md).
The written labels are the source's: a tumour network for KiTS writes 2 for tumour.
Beside them volumes.csv and volumes.json say how large each label is, and run.json what was made of which file by what.
Cases that are done are skipped, so that the same command goes on where it was stopped.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import _root  # noqa: F401

from datasets.raw.options import DicomOptions, IntensityOptions
from engine.options import PredictionOptions
from engine.prediction.options import OutputOptions
from utils.cluster import ClusterOptions
from utils.errors import run
from utils.files import check_folder
from utils.options import Parser
from utils.ranks import refuse_several_processes

ALIASES = {"input": "inpath", "output": "outpath"}


def main() -> None:
    groups = (OutputOptions, PredictionOptions, IntensityOptions, DicomOptions, ClusterOptions)
    options, prediction, reading, dicom, of_several = Parser(__doc__, ALIASES).read(*groups)
    if not of_several.shard:
        refuse_several_processes()
    of_several.refuse_no_scheduler()

    # PyTorch takes seconds to load, and --help should not wait for it.
    from engine.prediction.carry_out import predict_cases
    from engine.prediction.on_cluster import open_one
    from engine.prediction.record import made_by
    from engine.saved_segmenter import open_segmenter

    check_folder(options.outpath.parent if options.is_one_file else options.outpath)
    # With a cluster, this process computes nothing, and need not have the device.
    segmenter, _ = open_segmenter(replace(prediction, device="cpu") if of_several.dask else prediction)
    made = made_by(segmenter, prediction, options, reading, dicom)
    network = partial(open_one, prediction)
    predict_cases(segmenter, made, prediction, options, reading, dicom, of_several, network)


if __name__ == "__main__":
    run(main)
