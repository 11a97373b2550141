"""Segment a NIfTI file, or every case in a folder, and write labels with the source's geometry.

    python scripts/predict.py --ckpt best.ckpt --inpath case.nii.gz --outpath predictions
    python scripts/predict.py --ckpt best.ckpt --inpath case.nii.gz --outpath case_labels.nii.gz
    python scripts/predict.py --ckpt best.ckpt --inpath data/raw/kits19 --outpath predictions --largest_component 2

A folder is read by the checkpoint's layout (KiTS cases without labels too), or, failing that, as NIfTI files: those
named as segmentations are left out, and nnU-Net's NAME_0000, NAME_0001, ... are the channels of one case.
The written labels are the source's: a tumour network for KiTS writes 2 for tumour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import _root  # noqa: F401

from datasets.raw.options import IntensityOptions
from datasets.raw.tree import nifti_stem
from engine.options import PredictionOptions
from utils.errors import UserError, join_errors, run
from utils.files import make_folder
from utils.numbers import NonNegativeInt
from utils.options import Parser, option
from utils.ranks import refuse_several_processes

if TYPE_CHECKING:
    from datasets.raw.layout import Case

ALIASES = {"input": "inpath", "output": "outpath"}


@dataclass(frozen=True)
class FileOptions:
    """files"""

    inpath: Path = option(MISSING, "a .nii or .nii.gz file, a folder, or a CSV file with a column image")
    outpath: Path = option(MISSING, "folder to write <case>.nii.gz to, or, for one case, the .nii or .nii.gz file")
    largest_component: NonNegativeInt = option(
        0, "keep the N largest connected components; 1 if N is left out, 0: all", nargs="?", const=1, metavar="N"
    )

    @property
    def is_one_file(self) -> bool:
        """Whether `outpath` names the file to write, not a folder."""
        return nifti_stem(self.outpath) is not None and not self.outpath.is_dir()


def main() -> None:
    refuse_several_processes()
    files, prediction, reading = Parser(__doc__, ALIASES).read(FileOptions, PredictionOptions, IntensityOptions)

    # PyTorch takes seconds to load, and --help should not wait for it.
    from datasets.raw.find_cases import find_cases
    from datasets.raw.notes import summarise_notes
    from datasets.raw.volume import read_volume, write_labels
    from engine.evaluation.predict import predict_volume
    from engine.segmenter import open_segmenter
    from utils.progress import progress

    make_folder(files.outpath.parent if files.is_one_file else files.outpath)
    segmenter, _ = open_segmenter(prediction)
    found = find_cases(files.inpath, segmenter.dataset, segmenter.channel)
    outputs = name_outputs([*found, *found.label_not_fetched], files)
    refuse_overwriting(outputs)
    print(f"decision: {segmenter.describe_decision(prediction.threshold)}", flush=True)
    unreadable, notes = [], {}
    for case, path in progress(outputs.items(), "segmenting", unit="case"):
        try:
            volume = read_volume(case, (), with_label=False, hounsfield=segmenter.hounsfield, reading=reading)
        except UserError as error:
            unreadable.append(str(error))
            continue
        labels = predict_volume(segmenter, volume, prediction.batch_size, prediction.threshold, files.largest_component)
        write_labels(path, labels, volume)
        counts = [f"{(labels == value).sum()} voxels of label {value}" for value in segmenter.source_labels()[1:]]
        notes[case.name] = volume.notes
        print(f"{path}: {'; '.join(counts)}")
    for note in [*found.notes, *summarise_notes(notes)]:
        print(f"note: {note}")
    if unreadable:
        raise UserError(f"{len(unreadable)} of {len(outputs)} cases could not be read: {join_errors(unreadable)}")


def name_outputs(cases: Sequence[Case], files: FileOptions) -> dict[Case, Path]:
    """Case -> the file to write; UserError if `--outpath` names one file and there are several cases."""
    if not files.is_one_file:
        return {case: files.outpath / f"{case.name}.nii.gz" for case in cases}
    if len(cases) > 1:
        raise UserError(f"{files.outpath}: is the name of one file, and there are {len(cases)} cases; give a folder")
    return {cases[0]: files.outpath}


def refuse_overwriting(outputs: Mapping[Case, Path]) -> None:
    """UserError if a result would take the place of an image or label that is read."""
    sources = {path.resolve() for case in outputs for path in (case.image, case.label) if path is not None}
    for path in outputs.values():
        if path.resolve() in sources:
            raise UserError(f"{path}: is an input, which the result would overwrite; give another --outpath")


if __name__ == "__main__":
    run(main)
