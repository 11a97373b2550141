"""The disk that slices will take, from the headers of the volumes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from datasets.labels import LabelMap
from datasets.raw.layout import Layout
from datasets.raw.nifti import Orientation
from datasets.slices.manifest import Manifest
from datasets.slicing.options import SliceMakerOptions
from datasets.slicing.slicemaker import split_of_cases
from datasets.splits import SPLITS, saved_split
from utils.errors import UserError

BYTES_PER_PIXEL = 3  # int16 of CT, uint8 of labels


class DiskEstimate(NamedTuple):
    """cases, slices: still to be cut; least, most: their bytes, where no training slice has the target, or all do."""

    cases: int
    slices: int
    least: int
    most: int

    def __str__(self) -> str:
        if not self.cases:
            return "slices: all cases are cut"
        return (
            f"slices: {format_gb(self.least)} to {format_gb(self.most)} for {self.cases} cases that are not cut yet, "
            f"from their headers: {self.slices} slices, {BYTES_PER_PIXEL} bytes a pixel (CT int16, labels uint8); of "
            "training cases at least the share of slices without the target, at most every slice"
        )


def estimate_disk(
    inpath: Path, outpath: Path, layout: Layout, label_map: LabelMap, options: SliceMakerOptions
) -> DiskEstimate:
    """What SliceMaker will write to `outpath` with these options; the split is drawn as it will be, and not saved."""
    cases = [case for case in layout.find(inpath) if case.label is not None]
    saved, split_options = saved_split(outpath / SPLITS, options.requested_split, options.resplit)
    split = split_of_cases(saved, cases, split_options)
    waiting = [case for case in cases if case.name not in cut_cases(outpath, label_map.name)]
    slices = least = most = 0
    for case in waiting:
        count, height, width = shape_in_header(case.image)
        of_slice = BYTES_PER_PIXEL * height * width
        written_at_least = round(options.negatives * count) if split.part_of(case.name) == "train" else count
        slices, least, most = slices + count, least + written_at_least * of_slice, most + count * of_slice
    return DiskEstimate(len(waiting), slices, least, most)


def require_disk(estimate: DiskEstimate, folder: Path) -> int:
    """The bytes that are free where `folder` is or will be; UserError if they cannot hold the slices."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free < estimate.least:
        raise UserError(
            f"{folder}: the slices need at least {format_gb(estimate.least)} and {format_gb(free)} are free; make room "
            "or give another --outpath"
        )
    return free


def cut_cases(outpath: Path, task: str) -> set[str]:
    """The cases that the manifests below `outpath` list for the task."""
    manifests = [Manifest.load(folder) for folder in (outpath, outpath / "train", outpath / "test")]
    return {name for manifest in manifests if manifest for name, entry in manifest.cases.items() if task in entry.tasks}


def shape_in_header(path: Path) -> tuple[int, int, int]:
    """[Z, Y, X] of a volume, without reading voxels."""
    try:
        image: Any = nib.load(path)
        z, y, x = Orientation.of(image.affine).to_zyx(image.shape[:3])
    except (OSError, EOFError, ValueError, HeaderDataError, ImageFileError) as error:
        raise UserError(f"{path}: its header cannot be read ({error}); copy, unpack or convert it again") from None
    return int(z), int(y), int(x)


def format_gb(size: float) -> str:
    """ "35.7 GB", of 10^9 bytes."""
    return f"{size / 1e9:.1f} GB"
