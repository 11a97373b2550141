"""Which of a network's maps are its stages."""

from __future__ import annotations

import math
from collections.abc import Sequence


def assign(strides: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Which map, by index into `strides`, is each of the wanted stages.

    Where there are as many maps as stages, each is one. Otherwise a stage takes the map whose stride is nearest (by
    ratio) to the wanted one; the finer of two equally near.
    """
    if len(strides) == len(wanted):
        return list(range(len(wanted)))
    return [
        min(range(len(strides)), key=lambda i: (abs(math.log2(strides[i] / stride)), strides[i])) for stride in wanted
    ]
