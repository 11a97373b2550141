"""A 2D network of nnU-Net that answers for batches of slices in a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from engine.nnunet.placement import Placement, place
from engine.nnunet.plan import Plan
from networks.contract import DECODER, ENCODER, Channels, Features
from networks.nnunet import NNUNet
from utils.batch import Batch, Stored


class NnunetTeacher:
    """Frozen, in eval mode. Its answers are for the stored values, which intensity augmentation leaves alone.

    Stages and logits come back on the frame's grid, the stages at the size that their stride gives there.
    """

    needs_stored = True

    def __init__(self, network: NNUNet, plan: Plan, channels: Sequence[Sequence[int]]) -> None:
        """channels: of each class of the task, the network's that make it up (`folder.class_channels`)."""
        self.network = network.eval().requires_grad_(False)
        self.plan = plan
        self.class_channels = [list(each) for each in channels]

    @property
    def channels(self) -> Channels:
        return replace(self.network.channels, classes=len(self.class_channels))

    def features(self, batch: Batch) -> Features:
        assert batch.stored is not None, "the loader left the stored values out"
        return self.answer(batch.stored)

    def answer(self, stored: Stored) -> Features:
        """Features in the frame of slices of one size, without gradients; the logits are of the task's classes."""
        shape = (stored.values.shape[-2], stored.values.shape[-1])
        # Pinning a batch's memory has made lists of tuples.
        origins = [origin._replace(spacing=(*origin.spacing,)) for origin in stored.origins]
        places = [place(self.plan, origin, shape) for origin in origins]
        # Not inference_mode, whose tensors some losses cannot save for the backward pass.
        with torch.no_grad():
            images = self._images(stored, places)
            features = self.network.features(torch.cat(images))
            with torch.autocast(stored.values.device.type, enabled=False):
                return self._in_frame(features, places, [len(tiles) for tiles in images])

    def _images(self, stored: Stored, places: Sequence[Placement]) -> list[Tensor]:
        """What the network sees of each slice, [T, 1, rows, columns]."""
        with torch.autocast(stored.values.device.type, enabled=False):
            return [
                each.images(values.float() * origin.scale + origin.shift, self.plan)
                for values, origin, each in zip(stored.values, stored.origins, places, strict=True)
            ]

    def _in_frame(self, features: Features, places: Sequence[Placement], tiles: Sequence[int]) -> Features:
        """tiles: how many of the features each slice has."""

        def stage(name: str) -> Tensor:
            stride = self.network.channels.stage(name).stride
            parts = features.stage(name).float().split(list(tiles))
            return torch.stack([each.stage(maps, stride, self.plan) for each, maps in zip(places, parts, strict=True)])

        parts = features.logits.float().split(list(tiles))
        logits = torch.stack([each.logits(maps, self.plan) for each, maps in zip(places, parts, strict=True)])
        return Features(tuple(map(stage, ENCODER)), tuple(map(stage, DECODER)), self._of_classes(logits))

    def _of_classes(self, logits: Tensor) -> Tensor:
        """Logits [B, C, h, w] of the network's classes -> of the task's; classes that are joined add probabilities."""
        return torch.stack([logits[:, channels].logsumexp(dim=1) for channels in self.class_channels], dim=1)
