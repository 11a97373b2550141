"""Blocks of contiguous slices of a case, for volumetric networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datasets.framed import Framed
from datasets.loader import CPU, Item, Sample, SliceDataset, collate
from datasets.slices.slice_folder import SliceFolder, case_of
from utils.batch import Batch, middle
from utils.seeding import generator


class BlockDataset(SliceDataset):
    """Item (epoch, i): the block around a `SliceDataset`'s item (epoch, i), float32 [D, h, w], its masks, case name.

    The block grows to superior. That slice is its `utils.batch.middle` one, exactly as without the block; beyond the
    ends of the volume comes the outermost slice again. All slices of a block are framed alike, and augmented by the
    same random numbers, those of noise too.
    """

    cacheable = False

    def __init__(self, *arguments: Any, block: int, with_masks: bool, **options: Any) -> None:
        """arguments, options: of `SliceDataset`; with_masks: of all slices, [D, h, w], or of the middle one, [h, w].

        UserError if a case lacks slices, with the command that cuts them.
        """
        super().__init__(*arguments, **options)
        self.block, self.with_masks = block, with_masks
        cases: dict[Path, tuple[SliceFolder, set[str]]] = {}
        for slices, name in (self._file(i) for i in range(len(self.names) + len(self.unlabelled or ()))):
            cases.setdefault(slices.folder, (slices, set()))[1].add(case_of(name)[0])
        for slices, names in cases.values():
            slices.refuse_gaps(sorted(names))

    def __getitem__(self, item: Item) -> Sample:
        epoch, i = item
        slices, name = self._file(i)
        image, mask, case, *_ = super().__getitem__(item)
        # What comes more than once is read once.
        samples = {name: (image, mask)}
        place = middle(self.block)
        names = slices.around(name, place, self.block - 1 - place)
        for each in names:
            if each not in samples:
                framed = self._framed(each, *slices.read(each)) if self.with_masks else self._unread(slices, each, mask)
                samples[each] = self.augment(*framed, generator(self.seed, "augment", epoch, i))
        images, masks = zip(*(samples[each] for each in names), strict=True)
        return torch.cat(images), torch.stack(masks) if self.with_masks else mask, case

    def load(self, items: Sequence[Item]) -> Framed | Batch:
        return collate([self[item] for item in items])

    def finish(self, loaded: Framed | Batch, items: Sequence[Item], device: torch.device = CPU) -> Batch:
        assert isinstance(loaded, Batch)
        return loaded.to(device)

    def _file(self, i: int) -> tuple[SliceFolder, str]:
        """Where item i of any epoch is from."""
        if i < len(self.names) or self.unlabelled is None:
            return self.slices, self.names[i]
        return self.unlabelled.files[(i - len(self.names)) % len(self.unlabelled)]

    def _unread(self, slices: SliceFolder, name: str, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The image of a slice, framed, with a mask in the place of its own."""
        return self._image(slices.read_ct(name), slices.window(case_of(name)[0], self.window)), mask
