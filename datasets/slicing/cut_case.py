"""The work on one case: read it, check it, write its slices.

It runs in worker processes, which should start at once: nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.labels import LabelMap
from datasets.raw.layout import Case
from datasets.raw.volume import read_volume
from datasets.slices.manifest import CutOptions, ManifestCase, TaskSlices
from datasets.window import HIGH_PERCENT, LOW_PERCENT, percentiles
from utils.errors import UserError
from utils.files import atomic_write

LOWEST_HU, HIGHEST_HU = -2048, 16383
HIGHEST_HU_OF_TISSUE = 3000


@dataclass(frozen=True)
class Job:
    """One case to cut into `folder`.

    labels: the source labels allowed; tasks: each with its options; hounsfield: the image should be in HU;
    draws: chooses the negatives; present: slices already on disk; source: what the record says of it.
    """

    case: Case
    folder: Path
    labels: tuple[int, ...]
    tasks: dict[str, tuple[LabelMap, CutOptions]]
    split: str
    hounsfield: bool
    draws: np.random.Generator
    present: frozenset[int]
    source: dict[str, Any]


def slice_name(case: str, index: int) -> str:
    """The file of one slice; the case's name may itself hold underscores."""
    return f"{case}_{index}.npz"


def write_slice(path: Path, ct: NDArray[np.int16], mask: NDArray[np.uint8] | None) -> None:
    """ct, mask: [H, W]; uncompressed, because it is read once an epoch."""
    arrays: dict[str, Any] = {"ct": ct} if mask is None else {"ct": ct, "mask": mask}
    with atomic_write(path) as temporary:
        np.savez(temporary, **arrays)


def choose_slices(target: Collection[int], order: NDArray[np.int64], options: CutOptions, split: str) -> TaskSlices:
    """What to list (the targets and a drawn share of the others) and what to write (that, or every slice).

    order: all slice numbers as drawn; a larger share of negatives therefore holds those of a smaller one.
    """
    wanted = set(target)
    others = [int(index) for index in order if int(index) not in wanted]
    listed = sorted(wanted | set(others[: round(options.negatives * len(others))]))
    everything = split != "train" or options.slices == "all"
    return TaskSlices(sorted(wanted), listed, list(range(len(order))) if everything else listed, options)


def cut_case(job: Job) -> ManifestCase:
    """Read one case and write the slices that are missing; a UserError leaves none of these.

    A case without segmentation gives slices without `mask`, none of them with a target.
    """
    volume = read_volume(job.case, job.labels)
    masks = [None] * len(volume.image) if volume.label is None else list(volume.label)
    lowest, low, high, highest = percentiles(volume.image, 0, LOW_PERCENT, HIGH_PERCENT, 100)
    total = len(volume.image)
    order = job.draws.permutation(total)
    record = ManifestCase(
        shape=(total, volume.image.shape[1], volume.image.shape[2]),
        spacing=volume.spacing,
        scale=volume.scale,
        shift=volume.shift,
        percentiles=(low, high),
        source=job.source,
        split=job.split,
        tasks={},
        notes=volume.notes + (unusual_hu(lowest, highest) if job.hounsfield else []),
    )
    for name, (task, options) in job.tasks.items():
        planes = zip(volume.slices, masks, strict=True)
        target = [int(index) for index, mask in planes if mask is not None and mask.any() and task.target(mask).any()]
        record.tasks[name] = choose_slices(target, order, options, job.split)
    missing = record.written - job.present
    done: list[Path] = []
    try:
        for index, ct, mask in zip(volume.slices, volume.image, masks, strict=True):
            if int(index) in missing:
                done.append(job.folder / slice_name(job.case.name, int(index)))
                write_slice(done[-1], ct, mask)
    except UserError:
        for path in done:
            path.unlink(missing_ok=True)
        raise
    return record


def unusual_hu(lowest: float, highest: float) -> list[str]:
    """Notes on a CT whose range, in stored units, does not look like HU."""
    if lowest >= 0 and highest > HIGHEST_HU_OF_TISSUE:
        return [f"unusual HU: {lowest:g} to {highest:g}, as if 1024 had been added"]
    if lowest < LOWEST_HU or highest > HIGHEST_HU:
        return [f"unusual HU: {lowest:g} to {highest:g}"]
    return []
