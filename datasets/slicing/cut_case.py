"""Cutting one case: read it, check it, write its slices.

Worker processes run this module and should start fast: nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.labels import LabelMap
from datasets.raw.intensities import percentiles
from datasets.raw.layout import Case
from datasets.raw.options import AS_IT_SHOULD_BE, ReadingOptions
from datasets.raw.segments import SegmentCode
from datasets.raw.turning import pick_slices
from datasets.raw.volume import read_volume
from datasets.slices.digests import slice_digest
from datasets.slices.manifest import CutOptions, ManifestCase, TaskSlices
from datasets.slices.slice_folder import slice_name
from datasets.window import HIGH_PERCENT, LOW_PERCENT
from utils.errors import UserError
from utils.files import atomic_write


@dataclass(frozen=True)
class CutJob:
    """One case to cut into slices in `folder`.

    labels: the allowed source labels; tasks: label map and options by the task's name; hounsfield: whether the
    image should be in HU; rng: draws the negatives; on_disk: slices that exist already; source: its state for the
    manifest; reading: what to do with unusual files; segments: what a DICOM SEG calls the labels.
    """

    case: Case
    folder: Path
    labels: tuple[int, ...]
    tasks: dict[str, tuple[LabelMap, CutOptions]]
    split: str
    hounsfield: bool
    rng: np.random.Generator
    on_disk: frozenset[int]
    source: dict[str, Any]
    reading: ReadingOptions = AS_IT_SHOULD_BE
    segments: Mapping[int, SegmentCode] | None = None


def write_slice(path: Path, ct: NDArray[np.int16], mask: NDArray[np.uint8] | None) -> None:
    """ct, mask: [H, W]. Uncompressed, because every epoch reads it again; cases.json is written after it."""
    arrays: dict[str, Any] = {"ct": ct} if mask is None else {"ct": ct, "mask": mask}
    with atomic_write(path, last=False) as temporary:
        np.savez(temporary, **arrays)


def choose_slices(target: Collection[int], order: NDArray[np.int64], options: CutOptions, split: str) -> TaskSlices:
    """List the target slices and a share of the others; write these, or every slice.

    order: all slice numbers in random order. The others are taken from its start, so that a larger share of
    negatives contains a smaller one.
    """
    targets = set(target)
    others = [int(index) for index in order if int(index) not in targets]
    listed = sorted(targets | set(others[: round(options.negatives * len(others))]))
    write_all = split != "train" or options.slices == "all"
    return TaskSlices(sorted(targets), listed, list(range(len(order))) if write_all else listed, options)


def cut_case(job: CutJob) -> ManifestCase | UserError:
    """Read a case and write the slices that are not on disk; if a UserError stops it, those are removed again.

    Only those that are written now have a digest in the entry. The slices of a case without segmentation have no
    `mask`, and none of them is a target slice. A case that cannot be used gives its error back, so that the other cases
    are looked at too; a disk that is full stops everything.
    """
    try:
        volume = read_volume(
            job.case,
            job.labels,
            hounsfield=job.hounsfield,
            reading=job.reading,
            segments=job.segments,
            as_stored=True,
        )
    except UserError as error:
        return error
    masks = [None] * len(volume.image) if volume.label is None else list(volume.label)
    low, high = percentiles(volume.level_counts, LOW_PERCENT, HIGH_PERCENT)
    total, height, width = volume.image.shape
    order = job.rng.permutation(total)
    entry = ManifestCase(
        shape=(total, height, width),
        spacing=volume.spacing,
        scale=volume.scale,
        shift=volume.shift,
        percentiles=(low, high),
        source=job.source,
        split=job.split,
        tasks={},
        notes=volume.notes,
        label_geometry=volume.label_geometry,
        hounsfield=job.hounsfield,
        any_intensity=job.reading.any_intensity,
        patient=job.case.patient,
        orientation=volume.stored_as.orientation,
    )
    numbered = [(int(index), mask) for index, mask in zip(volume.slices, masks, strict=True)]
    not_empty = [(index, mask) for index, mask in numbered if mask is not None and mask.any()]
    for name, (label_map, options) in job.tasks.items():
        target = [index for index, mask in not_empty if label_map.has_target(mask)]
        entry.tasks[name] = choose_slices(target, order, options, job.split)
    missing = entry.written_slices - job.on_disk
    places = [place for place, index in enumerate(volume.slices) if int(index) in missing]
    paths: list[Path] = []
    try:
        for place, ct in zip(places, pick_slices(volume.image, places), strict=True):
            index = int(volume.slices[place])
            paths.append(job.folder / slice_name(job.case.name, index))
            write_slice(paths[-1], ct, masks[place])
            entry.digests[index] = slice_digest(paths[-1])
    except UserError:
        for path in paths:
            path.unlink(missing_ok=True)
        raise
    return entry
