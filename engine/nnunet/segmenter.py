"""A folder of nnU-Net as a segmenter, and teachers by any of their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.frame import LARGEST, SMALLEST, Frame
from datasets.loader import framed_values
from datasets.raw import LAYOUTS
from datasets.slices.slice_folder import open_slices
from engine.nnunet.folder import INSTEAD, class_channels, describe_classes, read_model_folder
from engine.nnunet.teacher import NnunetTeacher
from engine.options import DataOptions, is_nnunet
from engine.saved_segmenter import load_segmenter, load_weights
from engine.segmenter import Segmenter, batches
from networks.contract import Channels, SegmentationNetwork
from networks.nnunet import NNUNet
from utils.batch import Stored
from utils.errors import UserError
from utils.registry import match_name
from utils.stored_as import StoredAs, known


@dataclass
class NnunetSegmenter(Segmenter):
    """answers: of its network, which sees stored values and not the window's; stored_as: of the case at hand."""

    answers: NnunetTeacher | None = None
    stored_as: StoredAs | None = None

    def teacher(self) -> NnunetTeacher:
        assert self.answers is not None
        return self.answers

    def for_case(self, name: str, stored_as: StoredAs | None) -> NnunetSegmenter:
        return replace(self, stored_as=known(stored_as, f"case {name}"))

    def with_network(self, network: SegmentationNetwork, model: str) -> Segmenter:
        return Segmenter(
            network, model, self.dataset, self.label_map, self.frame, self.window, self.offsets, self.channel
        )

    def framed_probabilities(
        self,
        image: NDArray[np.int16],
        window: tuple[float, float],
        batch_size: int = 8,
        parts: Iterable[slice] | None = None,
    ) -> Iterator[tuple[slice, Tensor]]:
        """As of any segmenter, of the case that `for_case` named; the window plays no part."""
        assert self.stored_as is not None, "of which case?"
        origin = self.stored_as._replace(spacing=self.frame.spacing(self.stored_as.spacing, image.shape[1:]))
        for part in batches(len(image), batch_size) if parts is None else parts:
            values = torch.stack([framed_values(each, self.frame) for each in image[part]]).round().to(torch.int16)
            stored = Stored(values.to(self.device), [origin] * len(values))
            yield part, self.of_logits(self.teacher().answer(stored).logits)


def channels_in_folder(path: Path, classes: int) -> Channels:
    """Of a teacher that nnunet:FOLDER[:FOLD] names, for a task of so many classes."""
    folder = read_model_folder(path)
    return replace(NNUNet(folder.plan.architecture, len(folder.labels)).channels, classes=classes)


def load_teacher(path: Path, device: torch.device, data: DataOptions) -> tuple[Segmenter, dict[str, Any]]:
    """The teacher in a checkpoint, or in a folder of nnU-Net (nnunet:FOLDER[:fold]), and what its file says.

    data: names the data set and the task that a teacher of nnU-Net is for, and the slices, whose labels these are; its
    frame is the whole slice, at the size that most images had which it was trained on.
    """
    if not is_nnunet(path):
        return load_segmenter(path, device)
    folder = read_model_folder(path)
    dataset = match_name("dataset", data.dataset or "kits", LAYOUTS)
    slices = open_slices(data.train_data_path, dataset, data.task or "tumor", "train")
    if slices.dataset_window is None:
        raise UserError(f"{path}: a network of nnU-Net can teach on CT alone, and {slices.folder} holds MR")
    channels = class_channels(folder, slices.label_map)
    network = NNUNet(folder.plan.architecture, len(folder.labels))
    load_weights(network, folder.weights, f"{folder.checkpoint}: its weights do not fit plans.json", INSTEAD)
    network.to(device).to(memory_format=torch.channels_last)
    size = min(max(*folder.plan.median, SMALLEST), LARGEST)
    segmenter = NnunetSegmenter(
        network,
        "nnunet",
        dataset,
        slices.label_map,
        Frame(size, 0),
        slices.dataset_window,
        channel=slices.manifest.channel if slices.manifest else None,
        answers=NnunetTeacher(network, folder.plan, channels),
    )
    return segmenter, {
        "cases": {"train": [], "val": []},
        "config": {"nnunet": str(folder.checkpoint)},
        "about": describe_classes(folder, slices.label_map, channels),
    }
