"""Cutting a teacher's answers to one case: read them, check that they are of it, write a file for each slice.

Worker processes run this module and should start fast: nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.labels import LabelMap
from datasets.raw.layout import Case
from datasets.raw.options import AS_IT_SHOULD_BE, ReadingOptions
from datasets.raw.probabilities import hard_labels, open_probabilities
from datasets.raw.segments import SegmentCode
from datasets.raw.teacher_labels import ChannelLabels, ClassMaker, read_record
from datasets.raw.volume import Volume, read_volume
from datasets.slices.answers import FLOOR, AnsweredCase
from datasets.slices.digests import slice_digest
from datasets.slices.slice_folder import slice_name
from utils.errors import UserError
from utils.files import atomic_write
from utils.fingerprint import files_digest

MUCH_BETTER = 0.3
"""By how much more a turned answer must agree with the mask to be mentioned, in Dice."""
POOR = 0.5
AXES = ("superior to inferior", "anterior to posterior", "left to right")


@dataclass(frozen=True)
class AnswerJob:
    """One case whose answers are to be cut into `folder`.

    files: those to average, each with what its channels stand for (None: not said); sources: of each what answers.json
    records; written: the slices to answer for; labels: the allowed source labels; the rest as in `CutJob`.
    """

    case: Case
    folder: Path
    files: tuple[tuple[Path, ChannelLabels | None], ...]
    sources: tuple[dict[str, Any], ...]
    image: dict[str, Any]
    written: frozenset[int]
    label_map: LabelMap
    labels: tuple[int, ...]
    hounsfield: bool
    reading: ReadingOptions = AS_IT_SHOULD_BE
    segments: Mapping[int, SegmentCode] | None = None


def cut_answers(job: AnswerJob) -> AnsweredCase | UserError:
    """Write the answers to the slices of a case; the entry for answers.json.

    A case whose answers cannot be used gives its error back and leaves no file.
    """
    try:
        volume = read_volume(
            job.case, job.labels, hounsfield=job.hounsfield, reading=job.reading, segments=job.segments
        )
        probabilities, labels = mean_probabilities(job, volume)
        sources = [source | {"labels": channels} for source, channels in zip(job.sources, labels, strict=True)]
        entry = AnsweredCase(job.image, probabilities.shape[1:], volume.affine.tolist(), sources)
        if volume.label is not None:
            entry.dice, entry.notes = agreement(hard_labels(probabilities), volume.label, job.label_map)
    except UserError as error:
        return error
    paths: list[Path] = []
    try:
        for place, index in enumerate(map(int, volume.slices)):
            if index in job.written:
                paths.append(job.folder / slice_name(job.case.name, index))
                write_answer(paths[-1], probabilities[:, place])
                entry.digests[index] = slice_digest(paths[-1])
    except UserError:
        for path in paths:
            path.unlink(missing_ok=True)
        raise
    return entry


def mean_probabilities(job: AnswerJob, volume: Volume) -> tuple[NDArray[np.float32], list[ChannelLabels]]:
    """The mean over the files, [C, Z, Y, X] on the grid of the image, and what the channels of each stand for."""
    total: NDArray[np.float32] | None = None
    labels = []
    for path, said in job.files:
        _refuse_other_image(path, job.case)
        with open_probabilities(path, volume) as (count, channels):
            labels.append(_channel_labels(path, said, count, job.labels))
            classes = ClassMaker(labels[-1], job.label_map)(channels, path)
        if total is None:
            total = classes
        else:
            total += classes
    assert total is not None
    total /= len(job.files)
    return total, labels


def write_answer(path: Path, probabilities: NDArray[np.float32]) -> None:
    """probabilities: [C, H, W]; their logarithms from `FLOOR` on as float16, uncompressed as slices are."""
    with np.errstate(divide="ignore"):
        logs = np.log(probabilities).clip(FLOOR, 0).astype(np.float16)
    with atomic_write(path, last=False) as temporary:
        np.savez(temporary, log_probabilities=logs)


def agreement(
    answered: NDArray[np.uint8], mask: NDArray[np.uint8], label_map: LabelMap
) -> tuple[dict[str, float | None], list[str]]:
    """The Dice of each region of answered classes [Z, Y, X] with a mask of source labels; notes of what looks wrong.

    None where neither has a voxel of the region. It looks wrong where it is poor, or where turned answers fit better.
    """
    reference = label_map.encode(mask)
    scores: dict[str, float | None] = {}
    notes = []
    for region, classes in label_map.regions.items():
        found, true = (np.isin(volume, classes) for volume in (answered, reference))
        scores[region] = score = _dice(found, true)
        if score is not None and score + MUCH_BETTER < 1:
            turned = _explanation(found, true, score)
            if turned or score < POOR:
                notes.append(
                    f"the answers agree with the mask at a Dice of {score:.2f} for {region}; are they of this image "
                    f"and of these labels?{turned}"
                )
    return scores, notes


def _dice(found: NDArray[np.bool_], true: NDArray[np.bool_]) -> float | None:
    total = np.count_nonzero(found) + np.count_nonzero(true)
    return round(2 * np.count_nonzero(found & true) / total, 4) if total else None


def _explanation(found: NDArray[np.bool_], true: NDArray[np.bool_], score: float) -> str:
    best, flipped = score + MUCH_BETTER, ""
    for turned in product((False, True), repeat=3):
        steps = tuple(slice(None, None, -1 if turn else 1) for turn in turned)
        if any(turned) and (other := _dice(found[steps], true) or 0) > best:
            axes = " and ".join(axis for axis, turn in zip(AXES, turned, strict=True) if turn)
            best, flipped = other, f" Turned {axes} they agree at {other:.2f}."
    return flipped


def _channel_labels(path: Path, said: ChannelLabels | None, count: int, labels: tuple[int, ...]) -> ChannelLabels:
    """What each of a file's channels stands for; UserError where nothing says it, or if that is for more channels."""
    if said is None and set(range(count)) != set(labels):
        raise UserError(
            f"{path}: has {count} channels, and nothing says which labels they are; give --teacher_labels, as in "
            "1=1 2=2, or, for regions, 0=1+2 1=2"
        )
    known = said if said is not None else tuple((label,) for label in range(count))
    if len(known) > count:
        raise UserError(f"{path}: has {count} channels, but labels are given for {len(known)}; see --teacher_labels")
    return (*known, *((),) * (count - len(known)))


def _refuse_other_image(path: Path, case: Case) -> None:
    """UserError if the folder says that it answered for another image of this name."""
    record = read_record(path)
    if record is not None and record[1] != files_digest(case.sources):
        raise UserError(
            f"{path}: answers for another image than {case.image}, as run.json beside it says; write it again with "
            "scripts/answer.py"
        )
