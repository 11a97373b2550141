"""Slices to batches. The same (seed, epoch, index) gives the same sample in any process and after any restart."""

from __future__ import annotations

import atexit
import signal
from collections.abc import Iterator, Sequence
from copy import copy
from multiprocessing import active_children
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets.augment import get_augment
from datasets.frame import Frame
from datasets.framed import Framed, framed_image, refuse_sizes, windowed
from datasets.slices.answers import StoredAnswers
from datasets.slices.slice_folder import SliceFolder, case_of
from datasets.slices.unlabelled import UnlabelledSlices
from datasets.step_batches import StepBatches
from utils.ahead import ahead
from utils.batch import UNLABELLED, Batch, Stored, middle, mixup, part_sizes
from utils.seeding import generator
from utils.stored_as import StoredAs, known

if TYPE_CHECKING:
    from datasets.cache import SliceCache

CPU = torch.device("cpu")
Item = tuple[int, int]
"""epoch, i"""
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

    @property
    def cacheable(self) -> bool:
        """Whether all its slices are an image, a mask and perhaps answers of one size, and nothing more."""
        return self.frame.side > 0 and not self.with_stored

    def __getitem__(self, item: Item) -> Sample:
        batch = self._augmented(self.framed(item), [item])
        image, mask, case = batch.image[0], batch.mask[0], batch.cases[0]
        fields: dict[str, Any] = {}
        if batch.answers is not None:
            fields["answers"] = batch.answers[0]
        if batch.stored is not None:
            fields["stored"] = batch.stored._replace(values=batch.stored.values[0])
        return (image, mask, case, fields) if fields else (image, mask, case)

    def framed(self, item: Item) -> Framed:
        """A batch of one slice, as it is before it is windowed and augmented; the same in every epoch."""
        _, i = item
        if i < len(self.names) or self.unlabelled is None:
            name, slices = self.names[i], self.slices
            case, _ = case_of(name)
            ct, labels = slices.read(name)
            values, maps = framed_image(ct, slices.window(case, self.window), self.frame)
            mask = self._classes(labels)
        else:
            place = (i - len(self.names)) % len(self.unlabelled)
            slices, name = self.unlabelled.files[place]
            ct, window, case = self.unlabelled.read(place, self.window)
            values, maps = framed_image(ct, window, self.frame)
            mask = torch.full(values.shape[1:], UNLABELLED, dtype=torch.uint8)
        answers = stored = origins = None
        if self.answers is not None:
            probabilities = torch.from_numpy(self.answers.read(slices, name)).float().exp_()
            answers = self.frame.probabilities(probabilities)[None]
        if self.with_stored:
            stored = framed_values(ct, self.frame)[None]
            origins = [framed_origin(slices, case, self.frame, ct.shape)]
        return Framed(values, maps, mask, [case], answers, stored, origins)

    def load(self, items: Sequence[Item]) -> Framed | Batch:
        """What loading processes do for a batch; `finish` does the rest."""
        return Framed.joined([self.framed(item) for item in items])

    def finish(self, loaded: Framed | Batch, items: Sequence[Item], device: torch.device = CPU) -> Batch:
        """The batch of these items, which were loaded, on a device: there it is windowed and augmented."""
        assert isinstance(loaded, Framed)
        return self._augmented(loaded.to(device), items)

    def unaugmented(self, names: Sequence[str]) -> Self:
        """The same of other slices of the folder, as they are, without unlabelled ones."""
        other = copy(self)
        other.names, other.augment, other.unlabelled = list(names), get_augment("none"), None
        return other

    def _augmented(self, framed: Framed, items: Sequence[Item]) -> Batch:
        return framed.batch(self.augment, [generator(self.seed, "augment", *item) for item in items])

    def _framed(self, name: str, ct: NDArray[np.int16], mask: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """Image and mask of a slice of the folder."""
        return self._image(ct, self.slices.window(case_of(name)[0], self.window)), self._classes(mask)[0]

    def _image(self, ct: NDArray[np.int16], window: tuple[float, float]) -> Tensor:
        return windowed(*framed_image(ct, window, self.frame))[0]

    def _classes(self, mask: NDArray[np.uint8]) -> Tensor:
        """[1, h, w] of source labels [H, W]."""
        return self.frame.labels(torch.from_numpy(self.slices.label_map.encode(mask))[None])


def framed_values(ct: NDArray[np.int16], frame: Frame) -> Tensor:
    """Stored values [H, W] in the frame, float32 [1, h, w]; where it pads, the slice's lowest."""
    return frame.image(torch.from_numpy(ct.astype(np.float32))[None], pad=float(ct.min()))


def framed_origin(slices: SliceFolder, case: str, frame: Frame, shape: tuple[int, ...]) -> StoredAs:
    """How a slice [H, W] is stored, with the spacing of the frame's pixels; UserError where that was not recorded."""
    origin = known(slices.stored_as(case), f"{slices.folder}: case {case}")
    return origin._replace(spacing=frame.spacing(origin.spacing, shape))


class Loading(Dataset[tuple[Framed | Batch, list[Item]]]):
    """`SliceDataset.load` for PyTorch's loader, with its items beside each batch."""

    def __init__(self, dataset: SliceDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, items: list[Item]) -> tuple[Framed | Batch, list[Item]]:
        return self.dataset.load(items), items


def as_it_is(loaded: Any) -> Any:
    return loaded


class TrainingLoader:
    """Batches of a `SliceDataset` for any steps of a run, on a device, drawn with the dataset's seed."""

    def __init__(
        self,
        dataset: SliceDataset,
        batch_size: int,
        workers: int,
        unlabelled_per_batch: int | None = None,
        mixup_alpha: float = 0.0,
        device: torch.device = CPU,
        cache: SliceCache | None = None,
    ) -> None:
        """workers: processes that load; 0 loads in this one. unlabelled_per_batch: see `StepBatches`.

        mixup_alpha: of `utils.batch.mixup`; 0 mixes nothing. cache: of the dataset, which loads in place of workers.
        """
        self.dataset, self.mixup_alpha, self.device, self.cache = dataset, mixup_alpha, device, cache
        self.part, self.parts = 0, 1
        """What `between` gives of every batch: its part of this number, of so many."""
        self.batches = StepBatches(
            len(dataset), batch_size, dataset.seed, len(dataset.unlabelled or ()), unlabelled_per_batch
        )
        self.loader: DataLoader[tuple[Framed | Batch, list[Item]]] = DataLoader(
            Loading(dataset),
            batch_size=None,
            sampler=self.batches,
            # By default tuples become lists.
            collate_fn=as_it_is,
            num_workers=0 if cache else workers,
            # Its own, or the loader would draw from torch's at every start, and a resumed run from another place.
            generator=torch.Generator(),
            pin_memory=device.type == "cuda",
            persistent_workers=workers > 0 and not cache,
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
        if self.cache:
            cache = self.cache
            loaded: Iterator[tuple[Framed | Batch, list[Item]]] = ((cache.load(items), items) for items in self.batches)
        else:
            loaded = iter(self.loader)
        if self.loader.num_workers:
            # Registered last, called first: before PyTorch waits some seconds for each of them.
            atexit.unregister(kill_loading_processes)
            atexit.register(kill_loading_processes)
        batches = self._finished(loaded, start)
        # An accelerator computes while the next batches are prepared; a CPU would compute with the same cores.
        return batches if self.device.type == "cpu" else ahead(batches, depth=2)

    def _finished(self, loaded: Iterator[tuple[Framed | Batch, list[Item]]], start: int) -> Iterator[Batch]:
        for step, (content, items) in enumerate(loaded, start):
            batch = self.dataset.finish(content, items, self.device)
            if self.mixup_alpha:
                labelled = np.array([i < len(self.dataset) for _, i in items])
                batch = mixup(batch, self.mixup_alpha, generator(self.dataset.seed, "mixup", step), labelled)
            yield batch


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
    """Stack samples; UserError if the slices differ in size.

    Those of `datasets.blocks` have blocks [D, h, w] for images, and masks of all of their slices or of the middle one.
    """
    images, masks, cases, *others = zip(*samples, strict=True)
    refuse_sizes({image.shape for image in images}, cases)
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
