"""References of any data in the source labels of the network: other data may number the same classes otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.labelled_cases import LabelledCase
from datasets.labels import LabelMap
from datasets.raw import OWN_LABELS
from utils.errors import UserError


def in_labels_of(
    trained: tuple[str, LabelMap], cases: Iterable[LabelledCase], dataset: str, task: LabelMap, place: Path
) -> Iterator[LabelledCase]:
    """The cases with their labels translated class for class.

    trained: data set and label map of the network; dataset, task: of the cases; place: where these are, for UserError.
    The network's own data set is left as it is if its labels are fixed.
    """
    if dataset == trained[0] and dataset not in OWN_LABELS:
        return iter(cases)
    table = translation(task, trained[1], place)
    return (replace(case, label=table[case.label]) for case in cases)


def translation(task: LabelMap, wanted: LabelMap, place: Path) -> NDArray[np.uint8]:
    """[256]: a source label of `wanted` for each of `task`, of the class of the same regions; 0 for those of no class.

    UserError if the classes are not the same.
    """
    if task == wanted:
        return np.arange(256, dtype=np.uint8)
    here, there = _regions_of(task), _regions_of(wanted)
    if task.num_classes == wanted.num_classes == 2:
        here = there  # Some data sets give the one class of a task another name.
    if sorted(map(sorted, here)) != sorted(map(sorted, there)) or len(set(there)) < len(there):
        raise UserError(
            f"{place}: task {task.name} has the classes {', '.join(task.classes)} here, and the network's are "
            f"{', '.join(wanted.classes)}; give data with these, or name their labels alike"
        )
    table = np.zeros(256, np.uint8)
    for labels, regions in zip(task.labels, here, strict=True):
        table[list(labels)] = wanted.labels[there.index(regions)][0]
    return table


def _regions_of(task: LabelMap) -> list[frozenset[str]]:
    """Of each class, the names of the regions that it is part of: unlike its own, they are the same in all layouts."""
    return [
        frozenset(name for name, classes in task.regions.items() if index in classes)
        for index in range(1, task.num_classes)
    ]
