"""What the training loop runs: a batch in, the terms of the loss out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from distillation.segmentation_loss import batch_loss, segmentation_equation
from networks.contract import SegmentationNetwork
from utils.across import gather, own_draws, whole_batch
from utils.batch import Batch

NETWORK = "network."


class TrainingTask(nn.Module):
    """All that the loop knows: a forward from a batch to {term: weighted scalar, ..., "loss": their sum}.

    `network` is what gets validated and exported; the hooks are those of `Method`.
    """

    @property
    def needs_stored(self) -> bool:
        """Whether batches have to bring along what the sources hold."""
        return False

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError

    def equation(self) -> str:
        """The loss, as text."""
        raise NotImplementedError

    def prepare(self, loader: Iterable[Batch]) -> None:
        """Called once, before the first step."""

    def extra_optimizers(self) -> list[Optimizer]:
        """Stepped along with the main one, which leaves their parameters alone."""
        return []

    def before_step(self, step: int, steps: int) -> None:
        """Called before every step with its number, 0 to `steps` - 1."""

    def after_step(self) -> None:
        """Called after every step."""

    def extra_state(self) -> dict[str, Any]:
        """What a checkpoint keeps besides the network's weights: adapters, memories, the balance of the terms."""
        return {key: value for key, value in self.state_dict().items() if not key.startswith(NETWORK)}

    def load_extra_state(self, network_weights: Mapping[str, Tensor], extra: Mapping[str, Any]) -> None:
        """Take over a checkpoint's weights of the network, and what `extra_state` gave."""
        self.load_state_dict({**{NETWORK + key: value for key, value in network_weights.items()}, **extra})


class SupervisedTask(TrainingTask):
    """A network learns from the reference masks alone."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """{term: weighted scalar, ..., "loss": their sum}; autocast reaches the network, not the losses."""
        with own_draws(batch):
            logits = self.network(batch.image)
        with torch.autocast(logits.device.type, enabled=False):
            terms = batch_loss(gather(logits.float(), batch.parts), whole_batch(batch))
        return with_sum(terms)

    def equation(self) -> str:
        return f"loss = {segmentation_equation()}"


def with_sum(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """The terms and "loss", their sum."""
    return {**terms, "loss": torch.stack(list(terms.values())).sum()}
