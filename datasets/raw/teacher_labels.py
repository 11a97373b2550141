"""What a teacher's channels stand for, and the classes of a task that they make.

A channel stands for one or more source labels. Channels with one for the background, label 0, are classes, which
exclude each other (softmax), and of which several may stand for the same labels; channels without are regions, which
may lie in each other (sigmoid), as nnU-Net's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.labels import HIGHEST_LABEL, LabelMap, plain_name
from datasets.raw.dataset_json import read_description
from datasets.raw.probabilities import beside
from utils.errors import UserError
from utils.files import read_json

ChannelLabels = tuple[tuple[int, ...], ...]
"""Of each channel the source labels, none where it is none of ours."""
SUM_TOLERANCE = 0.02
"""How far the channels of classes may add up from 1; half precision and resampling leave less."""
DESCRIPTION, RUN_FILE = "dataset.json", "run.json"


def read_teacher_labels(words: Sequence[str]) -> ChannelLabels | None:
    """`0=1+2 1=2`: channel 0 stands for labels 1 and 2. None without words.

    Channels that are not named are the background's, unless channel 0 is: then they are left out. UserError for
    anything else.
    """
    if not words:
        return None
    channels: dict[int, tuple[int, ...]] = {}
    for word in words:
        channel, _, labels = word.partition("=")
        try:
            numbers = tuple(int(label) for label in labels.split("+"))
            if int(channel) in channels or not 0 <= int(channel) <= HIGHEST_LABEL:
                raise ValueError(channel)
            if not all(0 <= number <= HIGHEST_LABEL for number in numbers) or (0 in numbers and numbers != (0,)):
                raise ValueError(labels)
        except ValueError:
            raise UserError(
                f"--teacher_labels {word}: expected CHANNEL=LABEL, once for each channel, as in 1=1 2=2, or, for "
                "regions, 0=1+2 1=2"
            ) from None
        channels[int(channel)] = numbers
    if 0 not in channels:
        channels[0] = (0,)
    return tuple(channels.get(number, ()) for number in range(max(channels) + 1))


def labels_beside(path: Path) -> ChannelLabels | None:
    """What the folder of a case's probabilities says of their channels, in this project's run.json or in dataset.json.

    The latter, which nnU-Net writes, lies beside the files, or, of a fold's validation, beside the folds. None where
    there is neither.
    """
    if (record := read_record(path)) is not None:
        return record[0]
    description = beside(path, DESCRIPTION)
    if description is None:
        return None
    groups = list(read_description(description).labels.values())
    if any(len(group) > 1 for group in groups):
        return tuple(groups)
    numbers = sorted(number for (number,) in groups)
    if numbers != list(range(1, len(numbers) + 1)):
        raise UserError(f"{description}: its labels {numbers} are not numbered without a gap; give --teacher_labels")
    return ((0,), *((number,) for number in numbers))


def refuse_other_names(path: Path, label_map: LabelMap) -> None:
    """UserError if dataset.json beside a case's probabilities calls other labels by the name of a class."""
    description = beside(path, DESCRIPTION)
    if description is None or read_record(path) is not None:
        return
    named = {plain_name(name): group for name, group in read_description(description).labels.items()}
    for name, labels in zip(label_map.classes, label_map.labels, strict=True):
        if (group := named.get(plain_name(name))) is not None and {*group}.isdisjoint(labels):
            raise UserError(
                f"{description}: calls label {group[0]} {name}, which is {labels[0]} in the data; say with "
                "--teacher_labels which of the data's labels each channel is"
            )


def read_record(path: Path) -> tuple[ChannelLabels, str] | None:
    """Of probabilities that this project wrote, the labels of each class, and the digest of the image they are of.

    None where there is no run.json beside them, or where it does not know them.
    """
    if not (path.parent / RUN_FILE).is_file():
        return None
    content: Any = read_json(path.parent / RUN_FILE)
    try:
        entry = next((each for each in content["cases"].values() if path.name in each.get("files", ())), None)
        if entry is None:
            return None
        labels = content["launches"][entry["launch"]]["labels"]
        return ((0,), *(tuple(map(int, group)) for group in labels)), str(entry["source"]["digest"])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise UserError(
            f"{path.parent / RUN_FILE}: does not say what {path.name} was made of; write it again with "
            "scripts/answer.py, or move run.json away and give --teacher_labels"
        ) from None


class ClassMaker:
    """Turns the channels of one teacher into the classes of a task, the background first."""

    def __init__(self, channels: ChannelLabels, label_map: LabelMap) -> None:
        """UserError for channels that do not tell the task's classes apart."""
        self.channels, self.label_map = channels, label_map
        self.are_regions = (0,) not in channels
        named = [set(labels) for labels in channels]
        self.inside = [self._inside(number, named) for number in range(len(channels))]
        own = [labels.difference(*(named[i] for i in self.inside[n])) for n, labels in enumerate(named)]
        self.classes = [self._class_of(number, labels) for number, labels in enumerate(own)]
        for name, labels in zip(label_map.classes, label_map.labels, strict=True):
            if lacking := sorted(set(labels).difference(*named)):
                label = f"label {lacking[0]}, a part of {name}" if len(lacking) < len(labels) else name
                raise UserError(f"--teacher_labels: no channel stands for {label}; they are {describe(channels)}")

    def __call__(self, volumes: Iterable[NDArray[np.float32]], source: Path) -> NDArray[np.float32]:
        """Probabilities [C, Z, Y, X] of the task's classes, of those of the channels, each [Z, Y, X].

        A region's own part is max(p - p of the regions right inside it, 0). UserError for classes that do not add up.
        """
        made: NDArray[np.float32] | None = None
        regions: list[NDArray[np.float32]] = []
        count = self.label_map.num_classes
        for number, volume in enumerate(volumes):
            if made is None:
                made = np.zeros((count, *volume.shape), np.float32)
            if self.are_regions:
                regions.append(volume)
            else:
                # Channels that are none of ours are background.
                made[self.classes[number] or 0] += volume
        assert made is not None
        for number, index in enumerate(self.classes[: len(regions)]):
            if index:
                inside = sum((regions[i] for i in self.inside[number]), np.float32(0))
                made[index] += (regions[number] - inside).clip(0)
        if self.are_regions:
            made[0] = (1 - made[1:].sum(axis=0)).clip(0)
        total = made.sum(axis=0)
        if not self.are_regions and np.abs(total - 1).max() > SUM_TOLERANCE:
            raise UserError(
                f"{source}: the classes of a voxel add up to between {total.min():.4g} and {total.max():.4g}; if the "
                "channels are regions, say so, as in --teacher_labels 0=1+2 1=2"
            )
        made /= total
        return made

    def _inside(self, number: int, named: list[set[int]]) -> list[int]:
        """The largest regions inside of one, none of a class; UserError for two that overlap.

        So are two regions that are the same. Classes that are the same are not: their probabilities are added.
        """
        others = [i for i, labels in enumerate(named) if i != number and labels & named[number]]
        if not self.are_regions:
            within, crossing = [], any(named[i] != named[number] for i in others)
        else:
            within = [i for i in others if named[i] <= named[number]]
            crossing = any(named[i] == named[number] or not (i in within or named[number] < named[i]) for i in others)
        if crossing:
            raise UserError(
                f"--teacher_labels: {describe(self.channels)}: two channels share a label, and neither is a part of "
                "the other, as regions have to be, or they are classes, which share all of their labels or none"
            )
        return [i for i in within if not any(named[i] < named[j] for j in within)]

    def _class_of(self, number: int, labels: set[int]) -> int | None:
        """The task's class of a channel's labels, 0 for the background, None of none; UserError for several."""
        table = {label: index for index, group in enumerate(self.label_map.labels, start=1) for label in group}
        classes = {table.get(label, 0) for label in labels}
        if len(classes) > 1:
            raise UserError(
                f"--teacher_labels: channel {number} stands for labels {sorted(labels)}, which task "
                f"{self.label_map.name} tells apart; choose another --task"
            )
        return next(iter(classes), None)

    def __str__(self) -> str:
        """Which channels are which class, for the user to check."""
        parts = []
        for index, name in enumerate(self.label_map.classes, start=1):
            own = [f"{number} ({'+'.join(map(str, self.channels[number]))})" for number in self._channels_of(index)]
            parts.append(f"{name} is {' and '.join(own)}")
        kind = "regions" if self.are_regions else "classes"
        return f"of the {len(self.channels)} {kind} (of labels), {', '.join(parts)}"

    def _channels_of(self, index: int) -> list[int]:
        return [number for number, own in enumerate(self.classes) if own == index]


def describe(channels: ChannelLabels) -> str:
    """As one types them."""
    return " ".join(f"{i}={'+'.join(map(str, labels))}" for i, labels in enumerate(channels) if labels)
