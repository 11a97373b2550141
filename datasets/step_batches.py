"""Which slices make the batches of a run's steps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from torch.utils.data import Sampler

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
            yield [(epoch, i) for i in (*labelled, *islice(unlabelled, self.unlabelled_each))]

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
