"""Framed slices in memory: each is read once, and then batches are copied from there."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch

from datasets.framed import Framed
from utils.transfer import sent

if TYPE_CHECKING:
    from datasets.loader import Item, SliceDataset

BYTES_PER_PIXEL = 3
"""int16 and uint8; BYTES_PER_ANSWER: float32, of each class."""
BYTES_PER_ANSWER = 4


class SliceCache:
    """The slices of a dataset on a device, or in the host's memory. One that was not asked for was not read."""

    def __init__(self, dataset: SliceDataset, device: torch.device, threads: int = 0) -> None:
        """Takes `cache_bytes`, as the slices come. ValueError for a dataset that cannot be cached.

        threads: that read slices; 0 reads them in the one that asks, which leaves all cores to those that compute.
        """
        if not cache_bytes(dataset):
            raise ValueError("slices of this dataset differ in size, or carry what is not kept")
        self.dataset, self.device = dataset, device
        count, side = slots(dataset), dataset.frame.side
        self.values = torch.empty(count, 1, side, side, dtype=torch.int16, device=device)
        self.maps = torch.empty(count, 2, device=device)
        self.mask = torch.empty(count, side, side, dtype=torch.uint8, device=device)
        classes = answered_classes(dataset)
        self.answers = torch.empty(count, classes, side, side, device=device) if classes else None
        self._map = ThreadPoolExecutor(threads).map if threads else map
        self.cases: dict[int, str] = {}
        """Of those that are here, by their places."""

    def load(self, items: Sequence[Item]) -> Framed:
        """What `SliceDataset.load` gives, on the cache's device."""
        places = [self._place(i) for _, i in items]
        missing = {place: item for place, item in zip(places, items, strict=True) if place not in self.cases}
        list(self._map(self._read, missing, missing.values()))  # The list raises what a thread raised.
        chosen = sent(torch.tensor(places), self.device)
        values, maps, mask = (each.index_select(0, chosen) for each in (self.values, self.maps, self.mask))
        answers = None if self.answers is None else self.answers.index_select(0, chosen)
        return Framed(values, maps, mask, [self.cases[place] for place in places], answers)

    def _place(self, i: int) -> int:
        labelled = len(self.dataset)
        return i if i < labelled else labelled + (i - labelled) % len(self.dataset.unlabelled or ())

    def _read(self, place: int, item: Item) -> None:
        read = self.dataset.framed(item)
        # Not as a batch, which would be copied once more.
        self.values[place].copy_(read.values[0])
        self.maps[place].copy_(read.maps[0])
        self.mask[place].copy_(read.mask[0])
        if self.answers is not None and read.answers is not None:
            self.answers[place].copy_(read.answers[0])
        (self.cases[place],) = read.cases


def slots(dataset: SliceDataset) -> int:
    """Its different slices, those without masks among them."""
    return len(dataset) + len(dataset.unlabelled or ())


def answered_classes(dataset: SliceDataset) -> int:
    """Of a teacher's answers on disk; 0 without."""
    return dataset.answers.label_map.num_classes if dataset.answers else 0


def cache_bytes(dataset: SliceDataset) -> int:
    """What a cache of it takes, in bytes; 0 where it cannot be cached."""
    per_pixel = BYTES_PER_PIXEL + BYTES_PER_ANSWER * answered_classes(dataset)
    return slots(dataset) * dataset.frame.side**2 * per_pixel if dataset.cacheable else 0
