"""Slices to batches. The same (seed, epoch, index) gives the same sample in any worker, rank or restart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from datasets.augment import get_augment
from datasets.frame import Frame
from datasets.slices.slice_folder import SliceFolder, case_of
from datasets.slices.unlabelled import UnlabelledSlices
from datasets.window import window_image
from utils.batch import UNLABELLED, Batch
from utils.errors import UserError
from utils.seeding import generator

Sample = tuple[Tensor, Tensor, str]


class SliceDataset(Dataset[Sample]):
    """Item (epoch, i): image float32 [1, h, w] in [-1, 1], mask uint8 [h, w] of class indices, case name.

    names: slice files of `slices`; window: HU, in place of the data set's own. With n names, item n and those
    after it are the slices of `unlabelled`, over and over, their masks `UNLABELLED`.
    """

    def __init__(
        self,
        slices: SliceFolder,
        names: Sequence[str],
        frame: Frame,
        augment: str = "none",
        seed: int = 0,
        window: tuple[float, float] | None = None,
        *,
        unlabelled: UnlabelledSlices | None = None,
    ) -> None:
        self.slices, self.names, self.frame, self.seed = slices, list(names), frame, seed
        self.augment = get_augment(augment)
        self.window = window
        self.unlabelled = unlabelled

    def __len__(self) -> int:
        """How many have a mask."""
        return len(self.names)

    def __getitem__(self, item: tuple[int, int]) -> Sample:
        epoch, i = item
        if i < len(self.names) or self.unlabelled is None:
            name = self.names[i]
            case, _ = case_of(name)
            ct, mask = self.slices.read(name)
            image = self._image(ct, self.slices.window(case, self.window))
            classes = self.frame.labels(torch.from_numpy(self.slices.label_map.encode(mask))[None])[0]
        else:
            ct, window, case = self.unlabelled.read((i - len(self.names)) % len(self.unlabelled), self.window)
            image = self._image(ct, window)
            classes = torch.full(image.shape[1:], UNLABELLED, dtype=torch.uint8)
        image, classes = self.augment(image, classes, generator(self.seed, "augment", epoch, i))
        return image, classes, case

    def _image(self, ct: NDArray[np.int16], window: tuple[float, float]) -> Tensor:
        return self.frame.image(torch.from_numpy(window_image(ct, *window))[None])


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, i), the order drawn from (seed, epoch).

    With several ranks every step deals batch_size * world consecutive samples out. All ranks have equally
    many batches: where the last step has fewer samples than ranks, it takes some from the epoch's beginning.

    With `unlabelled` slices `unlabelled_per_batch` (half of them) of each batch are such, i from n on. An epoch is one
    pass over the n others; the unlabelled go on from epoch to epoch, each once before any comes again, in an order
    drawn anew every time.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int,
        drop_last: bool = False,
        rank: int = 0,
        world: int = 1,
        *,
        unlabelled: int = 0,
        unlabelled_per_batch: int | None = None,
    ) -> None:
        joining = 0
        if unlabelled:
            joining = batch_size // 2 if unlabelled_per_batch is None else unlabelled_per_batch
            if not 0 < joining < batch_size:
                raise UserError(
                    f"--batch_size {batch_size} with {joining} unlabelled slices: a batch needs slices with masks "
                    "and without; give a larger one"
                )
        self.n, self.step, self.seed = n, (batch_size - joining) * world, seed
        self.unlabelled, self.joining = unlabelled, joining * world
        self.rank, self.world = rank, world
        self.batches = n // self.step if drop_last else -(-n // self.step)
        self.epoch = self.start_batch = 0

    def set(self, epoch: int, start_batch: int = 0) -> None:
        """The epoch to deal out next, from `start_batch` on (to continue an interrupted one)."""
        self.epoch, self.start_batch = epoch, start_batch

    def __len__(self) -> int:
        """How many batches are still to come in the epoch that was set."""
        return max(0, self.batches - self.start_batch)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = generator(self.seed, "order", self.epoch).permutation(self.n).tolist()
        unlabelled = self._unlabelled_from((self.epoch * self.batches + self.start_batch) * self.joining)
        for batch in range(self.start_batch, self.batches):
            together = order[batch * self.step : (batch + 1) * self.step]
            together += order[: max(0, self.world - len(together))]
            joining = list(islice(unlabelled, self.joining))
            yield [(self.epoch, i) for part in (together, joining) for i in part[self.rank :: self.world]]

    def _unlabelled_from(self, place: int) -> Iterator[int]:
        """The endless row of unlabelled items from a place on; each round of them has numbers of its own.

        A slice that comes twice in an epoch is thus augmented differently.
        """
        while True:
            done, start = divmod(place, self.unlabelled)
            order = generator(self.seed, "unlabelled", done).permutation(self.unlabelled)
            for j in order[start:].tolist():
                yield self.n + done * self.unlabelled + j
            place = (done + 1) * self.unlabelled


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples; UserError if the slices differ in size, which native sizes without a crop allow."""
    images, masks, cases = zip(*samples, strict=True)
    if len({image.shape for image in images}) > 1:
        raise UserError(
            f"slices of {', '.join(sorted(set(cases)))} differ in size; give --size, --crop or --batch_size 1"
        )
    return Batch(torch.stack(images), torch.stack(masks), list(cases))


def make_loader(
    slices: SliceFolder,
    names: Sequence[str],
    frame: Frame,
    augment: str,
    batch_size: int,
    seed: int,
    workers: int,
    *,
    window: tuple[float, float] | None = None,
    drop_last: bool = False,
    rank: int = 0,
    world: int = 1,
    unlabelled: UnlabelledSlices | None = None,
    unlabelled_per_batch: int | None = None,
) -> tuple[DataLoader[Batch], EpochBatches]:
    """A loader of `Batch`, and the sampler whose `set(epoch)` precedes each epoch; batch_size is per rank.

    unlabelled_per_batch: how many of them `unlabelled` gives, by default half.
    """
    dataset = SliceDataset(slices, names, frame, augment, seed, window, unlabelled=unlabelled)
    batches = EpochBatches(
        len(dataset), batch_size, seed, drop_last, rank, world,
        unlabelled=len(unlabelled or ()), unlabelled_per_batch=unlabelled_per_batch,
    )  # fmt: skip
    loader: DataLoader[Batch] = DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        # Its own, or the loader would draw from torch's at every start, and a resumed run from elsewhere.
        generator=torch.Generator(),
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
    )
    return loader, batches
