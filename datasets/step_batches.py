"""Which slices make the batches of a run's steps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from torch.utils.data import Sampler

from utils.batch import part_sizes
from utils.seeding import generator


class StepBatches(Sampler[list[tuple[int, int]]]):
    """The batches of a run's steps, each a list of (epoch, i), in an order drawn from (seed, epoch).

    An epoch is one pass over n slices; a last batch of a single one is filled from the epoch's start, for batch norm
    and the methods that compare slices need two. Of `unlabelled` slices, `unlabelled_per_batch` (by default
    `batch_size`) join each batch, with i from n on; they continue from epoch to epoch, each once before any comes
    again, in an order drawn for every such round.
    """

    def __init__(
        self, n: int, batch_size: int, seed: int, unlabelled: int = 0, unlabelled_per_batch: int | None = None
    ) -> None:
        self.n, self.batch_size, self.seed, self.unlabelled = n, batch_size, seed, unlabelled
        self.unlabelled_each = 0
        if unlabelled:
            self.unlabelled_each = batch_size if unlabelled_per_batch is None else unlabelled_per_batch
        self.per_epoch = -(-n // batch_size)
        self.steps = range(self.per_epoch)
        """Of the run, those to give batches for; set before each iteration."""
        self.part, self.parts = 0, 1
        """Which part of every batch to give, of how many; one that is empty gets the batch's first sample."""

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        unlabelled = self._unlabelled_from(self.steps.start * self.unlabelled_each)
        order: list[int] = []
        for step in self.steps:
            epoch, place = divmod(step, self.per_epoch)
            if not order or place == 0:
                order = generator(self.seed, "order", epoch).permutation(self.n).tolist()
            labelled = order[place * self.batch_size : (place + 1) * self.batch_size]
            if len(labelled) < 2:
                labelled += order[: self.batch_size - len(labelled)]
            items = [(epoch, i) for i in (*labelled, *islice(unlabelled, self.unlabelled_each))]
            sizes = part_sizes(len(items), self.parts)
            start = sum(sizes[: self.part])
            yield items[start : start + sizes[self.part]] or items[:1]

    def size_of(self, step: int) -> int:
        """How many samples the whole batch of a step has."""
        labelled = min(self.batch_size, self.n - step % self.per_epoch * self.batch_size)
        if labelled < 2:
            labelled += min(self.n, self.batch_size - labelled)
        return labelled + self.unlabelled_each

    def _unlabelled_from(self, place: int) -> Iterator[int]:
        """Indices of unlabelled slices from a place of their sequence on; each round of them has its own numbers.

        A slice that comes twice in an epoch is thus augmented differently.
        """
        while True:
            rounds, start = divmod(place, self.unlabelled)
            order = generator(self.seed, "unlabelled", rounds).permutation(self.unlabelled)
            for j in order[start:].tolist():
                yield self.n + rounds * self.unlabelled + j
            place = (rounds + 1) * self.unlabelled
