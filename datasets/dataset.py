"""Slices to batches. The same (seed, epoch, index) gives the same sample in any worker, rank or restart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from datasets.archive import Archive, case_of
from datasets.augment import get_augment
from datasets.frame import Frame
from datasets.window import window_image
from utils.batch import Batch
from utils.errors import UserError
from utils.seeding import generator

Sample = tuple[Tensor, Tensor, str]


class SliceDataset(Dataset[Sample]):
    """Item (epoch, i): image float32 [1, h, w] in [-1, 1], mask uint8 [h, w] of class indices, case name.

    names: slice files of `archive`; window: HU, in place of the data set's own.
    """

    def __init__(
        self,
        archive: Archive,
        names: Sequence[str],
        frame: Frame,
        augment: str = "none",
        seed: int = 0,
        window: tuple[float, float] | None = None,
    ) -> None:
        self.archive, self.names, self.frame, self.seed = archive, list(names), frame, seed
        self.augment = get_augment(augment)
        self.window = window

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, item: tuple[int, int]) -> Sample:
        epoch, i = item
        name = self.names[i]
        case, _ = case_of(name)
        ct, mask = self.archive.read(name)
        windowed = window_image(ct, *self.archive.window(case, self.window))
        image = self.frame.image(torch.from_numpy(windowed)[None])
        classes = self.frame.labels(torch.from_numpy(self.archive.task.encode(mask))[None])[0]
        image, classes = self.augment(image, classes, generator(self.seed, "augment", epoch, i))
        return image, classes, case


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, i), the order drawn from (seed, epoch).

    With several ranks every step deals batch_size * world consecutive samples out. All ranks have equally
    many batches: where the last step has fewer samples than ranks, it takes some from the epoch's beginning.
    """

    def __init__(
        self, n: int, batch_size: int, seed: int, drop_last: bool = False, rank: int = 0, world: int = 1
    ) -> None:
        self.n, self.step, self.seed = n, batch_size * world, seed
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
        for batch in range(self.start_batch, self.batches):
            together = order[batch * self.step : (batch + 1) * self.step]
            together += order[: max(0, self.world - len(together))]
            yield [(self.epoch, i) for i in together[self.rank :: self.world]]


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples; UserError if the slices differ in size, which native sizes without a crop allow."""
    images, masks, cases = zip(*samples, strict=True)
    if len({image.shape for image in images}) > 1:
        raise UserError(
            f"slices of {', '.join(sorted(set(cases)))} differ in size; give --size, --crop or --batch_size 1"
        )
    return Batch(torch.stack(images), torch.stack(masks), list(cases))


def make_loader(
    archive: Archive,
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
) -> tuple[DataLoader[Batch], EpochBatches]:
    """A loader of `Batch`, and the sampler whose `set(epoch)` precedes each epoch; batch_size is per rank."""
    dataset = SliceDataset(archive, names, frame, augment, seed, window)
    batches = EpochBatches(len(dataset), batch_size, seed, drop_last, rank, world)
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
