"""What a student is distilled from."""

from __future__ import annotations

from typing import Protocol

import torch

from networks.contract import Channels, Features, SegmentationNetwork
from utils.batch import Batch, middle


class Teacher(Protocol):
    """Anything that gives features for a batch.

    needs_stored: whether it takes the batch's stored values, so that these have to be loaded.
    """

    needs_stored: bool

    @property
    def channels(self) -> Channels: ...

    def features(self, batch: Batch) -> Features:
        """Without gradients, on the batch's device."""
        ...


class AnswersInBatch:
    """The answers that a batch brings along: log-probabilities, in the place of logits, and no stage of a network.

    They differ from the teacher's logits by a number for each pixel; only methods that do not see it take them
    (`distillation.method.Method.needs`).
    """

    needs_stored = False

    def __init__(self, classes: int) -> None:
        """classes: the background included."""
        self.channels = Channels((), (), classes)

    def features(self, batch: Batch) -> Features:
        assert batch.answers is not None, "the loader has no answers"
        return Features((), (), batch.answers)


class NetworkTeacher:
    """A frozen network in eval mode, which stays on its device."""

    needs_stored = False

    def __init__(self, network: SegmentationNetwork) -> None:
        self.network = network.eval().requires_grad_(False)

    @property
    def channels(self) -> Channels:
        return self.network.channels

    def features(self, batch: Batch) -> Features:
        # Not inference_mode, whose tensors some losses cannot save for the backward pass.
        with torch.no_grad():
            return self.network.features(batch.image)


class VolumeTeacher(NetworkTeacher):
    """A frozen volumetric network, which sees the block of slices around each image: `Batch.block`.

    It answers for the image alone, [B, C, h, w], with the whole maps beside it as `Features.block`. Of a stage with
    stride s along the slices, the image's map is the one that its slice lies in: at depth `middle // s`.
    """

    def features(self, batch: Batch) -> Features:
        if batch.block is None:
            raise ValueError("a volumetric teacher needs the slices around each image")
        with torch.no_grad():
            whole = self.network.features(batch.block.unsqueeze(1))
        place = middle(batch.block.shape[1])
        *stages, logits = (
            whole.stage(stage.name).select(2, place // stage.stride) for stage in self.network.channels.stages
        )
        return Features(tuple(stages[:5]), tuple(stages[5:]), logits, whole)


def network_teacher(network: SegmentationNetwork) -> NetworkTeacher:
    """The teacher that a network is: of single slices or volumetric."""
    return VolumeTeacher(network) if network.block else NetworkTeacher(network)
