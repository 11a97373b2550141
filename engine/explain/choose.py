"""Which slices are drawn: not those that flatter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.explain.options import SliceName
from utils.seeding import generator


@dataclass
class ShownSlice:
    """image [H, W]; target: where the class is, [H, W]; reasons: why it is shown."""

    name: SliceName
    image: NDArray[np.int16]
    target: NDArray[np.bool_]
    window: tuple[float, float]
    reasons: list[str] = field(default_factory=list)


class SliceChoice:
    """The slices with the largest gain, the largest loss and the smallest target, and some drawn at random.

    The draw takes those with the lowest numbers of a generator that the seed and the slice's name seed, so no result
    can enter it, nor the order of the cases. Only slices that are ahead so far are kept in memory.
    """

    def __init__(self, random: int, seed: int) -> None:
        self.random, self.seed = random, seed
        self.best: dict[str, tuple[float, ShownSlice]] = {}
        self.drawn: list[tuple[float, ShownSlice]] = []

    def consider(self, shown: ShownSlice, gain: float | None) -> None:
        """gain: in Dice, of one network over another on this slice; None where there is one network."""
        name = shown.name
        draw = generator(self.seed, "explain", name.case, name.number).random()
        self.drawn = sorted([*self.drawn, (draw, shown)], key=lambda pair: pair[0])[: self.random]
        self._keep("smallest target", -float(shown.target.sum()), shown)
        if gain is not None and gain > 0:
            self._keep("largest gain", gain, shown)
        if gain is not None and gain < 0:
            self._keep("largest loss", -gain, shown)

    def _keep(self, reason: str, value: float, shown: ShownSlice) -> None:
        if reason not in self.best or value > self.best[reason][0]:
            self.best[reason] = value, shown

    def chosen(self) -> list[ShownSlice]:
        """Each slice once, with its reasons."""
        reasons = ("largest gain", "largest loss", "smallest target")
        found = [(reason, self.best[reason][1]) for reason in reasons if reason in self.best]
        return merge([*found, *(("random draw", shown) for _, shown in self.drawn)])


def merge(pairs: Iterable[tuple[str, ShownSlice]]) -> list[ShownSlice]:
    """Slices with their reasons, those of one name as one."""
    slices: dict[SliceName, ShownSlice] = {}
    for reason, shown in pairs:
        slices.setdefault(shown.name, shown).reasons.append(reason)
    return list(slices.values())
