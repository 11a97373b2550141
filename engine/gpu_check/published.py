"""The published way of training, as what ours is compared with: slices loaded one at a time, fp16, eager, NCHW."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler

from datasets.loader import Sample, SliceDataset, collate
from distillation.task import SupervisedTask
from engine.device import Precision
from networks import build
from utils.batch import Batch

LEARNING_RATE = 1e-4


class OneByOne(Dataset[Sample]):
    """Slices of the first epoch, each read, windowed and augmented by itself."""

    def __init__(self, slices: SliceDataset) -> None:
        self.slices = slices

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, i: int) -> Sample:
        return self.slices[0, i]


class Published:
    """A network, Adam and scaler as published; each call is a step on a batch of the host or of the device."""

    def __init__(self, model: str, classes: int, device: torch.device) -> None:
        self.device = device
        network = build(model, classes).to(device)  # Contiguous, for it isn't told otherwise.
        self.task = SupervisedTask(network).train()
        self.optimizer = torch.optim.Adam(self.task.parameters(), lr=LEARNING_RATE)
        self.precision = Precision("fp16" if device.type == "cuda" else "off", device)

    def __call__(self, batch: Batch) -> float:
        self.optimizer.zero_grad()
        batch = batch.to(self.device)
        with self.precision.autocast():
            loss = self.task(batch)["loss"]
        self.precision.scaler.scale(loss).backward()
        self.precision.scaler.step(self.optimizer)
        self.precision.scaler.update()
        return float(loss.detach())


def loaded(slices: SliceDataset, batch_size: int, workers: int) -> Iterator[Batch]:
    """Its batches without end: whole ones in a random order, from loading processes."""
    dataset = OneByOne(slices)
    sampler = RandomSampler(dataset, replacement=True, num_samples=2**31)
    loader = DataLoader(dataset, batch_size, sampler=sampler, num_workers=workers, collate_fn=collate)
    yield from loader
