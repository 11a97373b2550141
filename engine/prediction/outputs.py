"""Where a case's results go: below one folder, in the tree of the images, or around the one file that was named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.raw.layout import Case
from datasets.raw.tree import nifti_stem
from engine.prediction.options import OutputOptions
from utils.errors import UserError

SUFFIXES = {"npz": ".npz", "nifti": "_probabilities.nii.gz"}
OWN_OUTPUT = "in the folder that is written to"


@dataclass(frozen=True)
class Outputs:
    """folder: what the names in reports are relative to; the rest: one case's files, None if not asked for."""

    folder: Path
    labels: Path
    probabilities: Path | None = None
    preview: Path | None = None
    seg: Path | None = None

    @property
    def files(self) -> list[Path]:
        return [path for path in (self.labels, self.probabilities, self.preview, self.seg) if path is not None]

    @property
    def names(self) -> list[str]:
        """The files below the folder, as reports name them."""
        return [path.relative_to(self.folder).as_posix() for path in self.files]


@dataclass(frozen=True)
class Reports:
    """run: which command and versions made what of which files; volumes: a table with a line for a label of a case."""

    run: Path
    csv: Path
    json: Path

    @staticmethod
    def of(options: OutputOptions) -> Reports:
        """run.json, volumes.csv, ... in the folder, or NAME.run.json, ... beside the one file."""
        folder, prefix = options.outpath, ""
        if options.is_one_file:
            folder, prefix = options.outpath.parent, f"{nifti_stem(options.outpath)}."
        return Reports(*(folder / f"{prefix}{name}" for name in ("run.json", "volumes.csv", "volumes.json")))


def name_outputs(cases: Sequence[Case], options: OutputOptions, dicom_seg: bool = False) -> dict[Case, Outputs]:
    """Case -> the files to write.

    UserError if `--outpath` names one file and there are several cases, or if a file would take the place of another,
    or of one that is read.
    """
    if options.is_one_file and len(cases) > 1:
        raise UserError(f"{options.outpath}: is the name of one file, and there are {len(cases)} cases; give a folder")
    outputs = {case: _outputs_of(case, options, dicom_seg) for case in cases}
    taken = {path.resolve(): "an input" for case in cases for path in (*case.sources, case.label) if path is not None}
    for case, files in outputs.items():
        for path in files.files:
            owner = taken.setdefault(path.resolve(), f"a result of {case.name}")
            if owner == "an input":
                raise UserError(f"{path}: is an input, which the result would overwrite; give another --outpath")
            if owner != f"a result of {case.name}":
                raise UserError(f"{path}: is {owner} and of {case.name}; rename one of the two images")
    return outputs


def without_own_outputs(cases: Sequence[Case], options: OutputOptions) -> tuple[list[Case], list[Path]]:
    """The cases that are no results in a folder `outpath` below `inpath`, and the images of those that are."""
    folder, root = options.outpath.resolve(), options.inpath.resolve()
    if options.is_one_file or folder == root or root not in folder.parents:
        return list(cases), []
    own = [case for case in cases if folder in case.image.resolve().parents]
    return [case for case in cases if case not in own], [case.image for case in own]


def _outputs_of(case: Case, options: OutputOptions, dicom_seg: bool) -> Outputs:
    labels = options.outpath
    if not options.is_one_file:
        labels = options.outpath / f"{case.name}.nii.gz"
    base = labels.with_name(nifti_stem(labels) or labels.name)
    return Outputs(
        options.outpath.parent if options.is_one_file else options.outpath,
        labels,
        base.with_name(base.name + SUFFIXES[options.probabilities]) if options.probabilities else None,
        base.with_name(f"{base.name}.png") if options.preview else None,
        base.with_name(f"{base.name}_seg.dcm") if dicom_seg else None,
    )
