"""Slices to batches. The same (seed, epoch, index) gives the same sample in any process and after any restart."""

from __future__ import annotations

import atexit
import signal
from collections.abc import Iterator, Sequence
from copy import copy
from itertools import islice
from multiprocessing import active_children
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from datasets.augment import get_augment
from datasets.frame import Frame
from datasets.slices.answers import FLOOR, StoredAnswers
from datasets.slices.slice_folder import SliceFolder, case_of
from datasets.slices.unlabelled import UnlabelledSlices
from datasets.window import window_image
from utils.batch import UNLABELLED, Batch, Stored, middle, mixup, part_sizes
from utils.errors import UserError
from utils.seeding import generator
from utils.stored_as import StoredAs, known

Sample = tuple[Tensor, Tensor, str] | tuple[Tensor, Tensor, str, dict[str, Any]]
"""image, mask, case, and further fields of `Batch` by their names where there are any."""


class SliceDataset(Dataset[Sample]):
    """Item (epoch, i): image float32 [1, h, w] in [-1, 1], mask uint8 [h, w] of class indices, case name.

    names: slice files of `slices`; window: HU, in place of the data set's own. With n names, the items from n on are
    the slices of `unlabelled` in endless repetition, their masks `UNLABELLED`.

    With answers or with_stored an item has a fourth part: {"answers": log-probabilities, float32 [C, h, w], "stored":
    what the source holds, int16 [1, h, w]}. What moves the image moves these, and what changes its intensities leaves
    them: the teacher answers for the clean image.
    """

    def __init__(
        self,
        slices: SliceFolder,
        names: Sequence[str],
        frame: Frame,
        augment: str = "none",
        seed: int = 0,
        window: tuple[float, float] | None = None,
        unlabelled: UnlabelledSlices | None = None,
        answers: StoredAnswers | None = None,
        with_stored: bool = False,
    ) -> None:
        self.slices, self.names, self.frame, self.seed = slices, list(names), frame, seed
        self.augment = get_augment(augment)
        self.window = window
        self.unlabelled, self.answers, self.with_stored = unlabelled, answers, with_stored

    def __len__(self) -> int:
        """The number of slices with a mask."""
        return len(self.names)

    def __getitem__(self, item: tuple[int, int]) -> Sample:
        epoch, i = item
        if i < len(self.names) or self.unlabelled is None:
            name, slices = self.names[i], self.slices
            case, _ = case_of(name)
            ct, mask = slices.read(name)
            image, classes = self._framed(name, ct, mask)
        else:
            place = (i - len(self.names)) % len(self.unlabelled)
            slices, name = self.unlabelled.files[place]
            ct, window, case = self.unlabelled.read(place, self.window)
            image = self._image(ct, window)
            classes = torch.full(image.shape[1:], UNLABELLED, dtype=torch.uint8)
        further: dict[str, Tensor] = {}
        if self.answers is not None:
            probabilities = torch.from_numpy(self.answers.read(slices, name)).float().exp_()
            further["answers"] = self.frame.probabilities(probabilities)
        if self.with_stored:
            further["stored"] = framed_values(ct, self.frame)
        if further:
            image = torch.cat([image, *further.values()])
        image, classes = self.augment(image, classes, generator(self.seed, "augment", epoch, i))
        if not further:
            return image, classes, case
        moved = image[1:].split([len(maps) for maps in further.values()])
        fields: dict[str, Any] = dict(zip(further, moved, strict=True))
        if self.answers is not None:
            fields["answers"] = fields["answers"].log().clamp_(min=FLOOR)
        if self.with_stored:
            origin = framed_origin(slices, case, self.frame, ct.shape)
            fields["stored"] = Stored(fields["stored"].round().to(torch.int16), [origin])
        return image[:1], classes, case, fields

    def unaugmented(self, names: Sequence[str]) -> Self:
        """The same of other slices of the folder, as they are, without unlabelled ones."""
        other = copy(self)
        other.names, other.augment, other.unlabelled = list(names), get_augment("none"), None
        return other

    def _framed(self, name: str, ct: NDArray[np.int16], mask: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """Image and mask of a slice of the folder."""
        image = self._image(ct, self.slices.window(case_of(name)[0], self.window))
        return image, self.frame.labels(torch.from_numpy(self.slices.label_map.encode(mask))[None])[0]

    def _image(self, ct: NDArray[np.int16], window: tuple[float, float]) -> Tensor:
        return self.frame.image(torch.from_numpy(window_image(ct, *window))[None])


def framed_values(ct: NDArray[np.int16], frame: Frame) -> Tensor:
    """Stored values [H, W] in the frame, float32 [1, h, w]; where it pads, the slice's lowest."""
    return frame.image(torch.from_numpy(ct.astype(np.float32))[None], pad=float(ct.min()))


def framed_origin(slices: SliceFolder, case: str, frame: Frame, shape: tuple[int, ...]) -> StoredAs:
    """How a slice [H, W] is stored, with the spacing of the frame's pixels; UserError where that was not recorded."""
    origin = known(slices.stored_as(case), f"{slices.folder}: case {case}")
    return origin._replace(spacing=frame.spacing(origin.spacing, shape))


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


class TrainingLoader:
    """Batches of a `SliceDataset` for any steps of a run, drawn with the dataset's seed."""

    def __init__(
        self,
        dataset: SliceDataset,
        batch_size: int,
        workers: int,
        unlabelled_per_batch: int | None = None,
        mixup_alpha: float = 0.0,
    ) -> None:
        """workers: processes that load; 0 loads in this one. unlabelled_per_batch: see `StepBatches`.

        mixup_alpha: of `utils.batch.mixup`; 0 mixes nothing.
        """
        self.dataset, self.mixup_alpha = dataset, mixup_alpha
        self.part, self.parts = 0, 1
        """What `between` gives of every batch: its part of this number, of so many."""
        self.batches = StepBatches(
            len(dataset), batch_size, dataset.seed, len(dataset.unlabelled or ()), unlabelled_per_batch
        )
        self.loader: DataLoader[Batch] = DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_sampler=self.batches,
            num_workers=workers,
            collate_fn=collate,
            # Its own, or the loader would draw from torch's at every start, and a resumed run from another place.
            generator=torch.Generator(),
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            worker_init_fn=ignore_interruptions,
        )

    @property
    def steps_per_epoch(self) -> int:
        return self.batches.per_epoch

    def __iter__(self) -> Iterator[Batch]:
        """The first epoch, of whole batches."""
        return self._between(0, self.steps_per_epoch)

    def between(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of a run's steps from `start` to before `stop`, one epoch after another; of each the own part."""
        if self.parts == 1:
            return self._between(start, stop)
        return self._parts_of(start, stop)

    def _parts_of(self, start: int, stop: int) -> Iterator[Batch]:
        # Mixing takes the whole batch.
        cut_here = bool(self.mixup_alpha)
        batches = self._between(start, stop) if cut_here else self._between(start, stop, self.part, self.parts)
        for step, batch in enumerate(batches, start):
            sizes = part_sizes(self.batches.size_of(step), self.parts)
            own = batch
            if cut_here:
                place = sum(sizes[: self.part])
                own = batch.part(slice(place, place + sizes[self.part]) if sizes[self.part] else slice(1))
            yield own._replace(parts=sizes)

    def _between(self, start: int, stop: int, part: int = 0, parts: int = 1) -> Iterator[Batch]:
        self.batches.steps = range(start, stop)
        self.batches.part, self.batches.parts = part, parts
        batches = iter(self.loader)
        if self.loader.num_workers:
            # Registered last, called first: before PyTorch waits some seconds for each of them.
            atexit.unregister(kill_loading_processes)
            atexit.register(kill_loading_processes)
        return self._mixed(batches, start) if self.mixup_alpha else batches

    def _mixed(self, batches: Iterator[Batch], start: int) -> Iterator[Batch]:
        for step, batch in enumerate(batches, start):
            yield mixup(batch, self.mixup_alpha, generator(self.dataset.seed, "mixup", step))


def ignore_interruptions(worker: int) -> None:
    """Leave Ctrl-C and SIGTERM, which reach loading processes too, to the one that trains: it finishes its step."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def kill_loading_processes() -> None:
    """When Python exits with some left: they ignore the signal that multiprocessing sends before it waits for them."""
    for process in active_children():
        if process.daemon:
            process.kill()


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples; UserError if the slices differ in size, which native sizes without a crop allow.

    Those of `datasets.blocks` have blocks [D, h, w] for images, and masks of all of their slices or of the middle one.
    """
    images, masks, cases, *others = zip(*samples, strict=True)
    if len({image.shape for image in images}) > 1:
        raise UserError(
            f"slices of {', '.join(sorted(set(cases)))} differ in size; give --size, --crop or --batch_size 1"
        )
    fields: dict[str, Any] = {}
    for name in others[0][0] if others else ():
        parts = [each[name] for each in others[0]]
        fields[name] = Stored.joined(parts) if name == "stored" else torch.stack(parts)
    image, mask = torch.stack(images), torch.stack(masks)
    if mask.ndim == image.ndim:
        image = image.unsqueeze(1)
    elif image.shape[1] > 1:
        place = middle(image.shape[1])
        image, fields["block"] = image[:, place : place + 1].contiguous(), image
    return Batch(image, mask, list(cases), **fields)
