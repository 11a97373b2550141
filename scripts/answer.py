"""Ask a teacher once: write its class probabilities for every case, to distil from without it.

    python scripts/answer.py --ckpt teacher/best.ckpt --inpath data/raw/kits19 --outpath data/answers
    python scripts/answer.py --ckpt fold_0/best.ckpt fold_1/best.ckpt --flips --inpath data/raw/kits19 --outpath answers
    python scripts/answer.py --ckpt teacher/best.ckpt --inpath data/raw/kits19 --outpath data/answers --shard 1/3
    python scripts/SliceMaker.py --inpath data/raw/kits19 --outpath data/kits --dataset kits --task tumor \\
        --teacher_probabilities data/answers

The mean over all checkpoints, with --flips also over the four flips of each slice in its plane. A checkpoint's
decision has no part in it. Cases are found, skipped and recorded as by predict.py: OUTPATH has CASE.npz as nnU-Net's
--save_probabilities writes it, the most probable labels as CASE.nii.gz, volumes.csv, and run.json, which SliceMaker.py
checks.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from functools import partial
from pathlib import Path

import _root  # noqa: F401

from datasets.raw.options import DicomOptions, IntensityOptions
from datasets.raw.tree import nifti_stem
from engine.options import PredictionOptions
from engine.prediction.options import OutputOptions
from utils.cluster import ClusterOptions
from utils.errors import UserError, run
from utils.files import make_folder
from utils.numbers import PositiveInt
from utils.options import Parser, option
from utils.ranks import refuse_several_processes


@dataclass(frozen=True)
class TeacherOptions:
    """teacher"""

    ckpt: tuple[Path, ...] = option(MISSING, "checkpoints of train.py or train_kd.py; the mean of several")
    inpath: Path = option(MISSING, "a .nii or .nii.gz file, a folder, or a CSV file with a column image")
    outpath: Path = option(MISSING, "folder to write <case>.npz to")
    flips: bool = option(False, "the mean over the four flips of each slice too, in four times the time")
    overwrite: bool = option(False, "answer again for cases that are done already")
    batch_size: PositiveInt = option(8, "slices at once")
    device: str = option("auto", "auto, cpu, cuda, cuda:1 or mps")

    def __post_init__(self) -> None:
        if nifti_stem(self.outpath) is not None and not self.outpath.is_dir():
            raise UserError(f"--outpath {self.outpath}: is the name of a file; give a folder")


def main() -> None:
    teacher, reading, of_several = Parser(__doc__).read(TeacherOptions, IntensityOptions, ClusterOptions)
    if not of_several.shard:
        refuse_several_processes()
    of_several.refuse_no_scheduler()

    # PyTorch takes seconds to load, and --help should not wait for it.
    from engine.prediction.carry_out import predict_cases
    from engine.prediction.ensemble import open_ensemble
    from engine.prediction.record import made_by
    from utils.fingerprint import files_digest

    make_folder(teacher.outpath)
    # With a cluster, this process computes nothing, and need not have the device.
    ensemble = open_ensemble(teacher.ckpt, "cpu" if of_several.dask else teacher.device, teacher.flips)
    options = OutputOptions(teacher.inpath, teacher.outpath, overwrite=teacher.overwrite, probabilities="npz")
    prediction = PredictionOptions(teacher.ckpt[0], batch_size=teacher.batch_size, device=teacher.device)
    dicom = DicomOptions()
    made = made_by(ensemble, prediction, options, reading, dicom)
    made |= {"checkpoint": files_digest(teacher.ckpt), "flips": teacher.flips}
    networks = partial(open_ensemble, teacher.ckpt, teacher.device, teacher.flips)
    predict_cases(ensemble, made, prediction, options, reading, dicom, of_several, networks)


if __name__ == "__main__":
    run(main)
