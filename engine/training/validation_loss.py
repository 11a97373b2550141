"""The terms of the loss on validation slices, for curves beside those of training."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from datasets.loader import Sample, SliceDataset, collate
from datasets.slices.slice_folder import slice_name
from distillation.task import TrainingTask
from engine.training.health import Health
from engine.training.validation import Validation
from utils.batch import Batch

SLICES = 16  # A teacher sees them too, so that all slices would take longer than the scores.


class ValidationLoss:
    """The mean of each term over the same few slices with the target, evenly spaced over the validation cases."""

    def __init__(self, task: TrainingTask, training: SliceDataset, validation: Validation, health: Health) -> None:
        """training: what the task is trained on; health: of the task, which puts back what a forward pass changes."""
        self.task, self.training, self.validation, self.health = task, training, validation, health

    def __call__(self) -> dict[str, float]:
        """Term -> mean, and "loss"; the task stays as it is, its memories and random numbers too.

        Empty where there is no such slice.
        """
        self.health.remember()
        self.task.eval()
        sums: dict[str, float] = {}
        for batch in self._batches:
            # With gradients, which some terms are made of; none is kept.
            with self.validation.precision.autocast():
                terms = self.task(batch.to(self.validation.precision.device))
            for term, value in terms.items():
                sums[term] = sums.get(term, 0.0) + len(batch.image) * float(value.detach())
        self.health.restore()
        count = sum(len(batch.image) for batch in self._batches)
        return {term: value / count for term, value in sums.items()}

    @cached_property
    def _batches(self) -> list[Batch]:
        validation, names = self.validation, self._names()
        dataset = self.training.unaugmented(names)
        sizes: dict[torch.Size, list[Sample]] = {}
        for sample in (dataset[0, i] for i in range(len(names))):
            sizes.setdefault(sample[0].shape, []).append(sample)
        batches = []
        for samples in sizes.values():
            parts = max(1, round(len(samples) / validation.batch_size))
            batches += [collate(samples[part::parts]) for part in range(parts)]
        # As in training: methods that compare the slices of a batch need two.
        return [batch for batch in batches if len(batch.image) >= min(2, validation.batch_size)]

    def _names(self) -> list[str]:
        """Up to `SLICES` names; where no cases.json says which slices have the target, of all slices."""
        slices, names = self.validation.slices, []
        for case in self.validation.cases:
            entry = slices.manifest.cases[case].tasks.get(slices.label_map.name) if slices.manifest else None
            names += [slice_name(case, index) for index in entry.target] if entry else slices.cases[case]
        places = np.linspace(0, len(names) - 1, min(SLICES, len(names))).round().astype(int)
        return [names[i] for i in places]
