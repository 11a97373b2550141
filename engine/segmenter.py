"""A trained network with everything it needs to turn source pixels into labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.frame import Frame
from datasets.labels import LabelMap
from datasets.window import window_image
from networks import build
from networks.contract import SegmentationNetwork
from utils.batch import most_probable
from utils.checkpoint import load_checkpoint
from utils.errors import UserError


@dataclass
class Segmenter:
    """window is None where each volume has its own (percentiles of MR)."""

    network: SegmentationNetwork
    model: str
    dataset: str
    label_map: LabelMap
    frame: Frame
    window: tuple[float, float] | None

    def description(self) -> dict[str, Any]:
        """What a checkpoint records about the network, in plain types."""
        return {
            "model": self.model,
            "classes": self.label_map.num_classes,
            "dataset": self.dataset,
            "task": self.label_map.to_dict(),
            "frame": self.frame.to_dict(),
            "window": None if self.window is None else list(self.window),
        }

    def source_labels(self) -> NDArray[np.uint8]:
        """The label to write for each class index: the first of the source's labels that make the class."""
        return np.array([0, *(labels[0] for labels in self.label_map.labels)], np.uint8)

    def framed_probabilities(
        self, image: NDArray[np.int16], window: tuple[float, float], batch_size: int = 8
    ) -> Iterator[tuple[slice, Tensor]]:
        """Class probabilities in the frame, [n, C, h, w], batch by batch, for slices [N, H, W].

        window: in the image's stored units. The network is left in the mode it was in.
        """
        device = next(self.network.parameters()).device
        training = self.network.training
        self.network.eval()
        try:
            for start in range(0, len(image), batch_size):
                part = slice(start, min(start + batch_size, len(image)))
                values = torch.from_numpy(window_image(image[part], *window)).to(device)
                with torch.no_grad():
                    logits = self.network(self.frame.image(values).unsqueeze(1))
                yield part, logits.float().softmax(dim=1)
        finally:
            self.network.train(training)

    def segment(
        self,
        image: NDArray[np.int16],
        window: tuple[float, float],
        batch_size: int = 8,
        threshold: float | None = None,
    ) -> NDArray[np.uint8]:
        """Class indices [N, H, W] of slices [N, H, W] at their own resolution.

        The class is decided last: probabilities go back through the frame. Without a threshold the most
        probable class wins; with one, a pixel is foreground where 1 - P(background) exceeds it.
        """
        labels = np.empty(image.shape, np.uint8)
        height, width = image.shape[1:]
        for part, framed in self.framed_probabilities(image, window, batch_size):
            probabilities = self.frame.back(framed, (height, width))
            if threshold is None:
                decided = most_probable(probabilities)
            else:
                foreground = 1 - probabilities[:, 0] > threshold
                decided = (most_probable(probabilities[:, 1:]) + 1) * foreground
            labels[part] = decided.to(torch.uint8).cpu().numpy()
        return labels


def load_segmenter(path: Path, device: torch.device) -> tuple[Segmenter, dict[str, Any]]:
    """The segmenter in a checkpoint, in eval mode on `device`, and the checkpoint's content."""
    content = load_checkpoint(path, device)
    try:
        if missing := {"cases", "config"} - content.keys():
            raise KeyError(f"no {', '.join(sorted(missing))}")
        label_map = LabelMap.from_dict(content["task"])
        frame = Frame.from_dict(content["frame"])
        window = None if content["window"] is None else (content["window"][0], content["window"][1])
        network = build(content["model"], label_map.num_classes)
        network.load_state_dict(content["weights"])
    except (KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: is not a checkpoint of this project ({reason}); train it again") from None
    network.to(device).to(memory_format=torch.channels_last).eval()
    return Segmenter(network, content["model"], content["dataset"], label_map, frame, window), content
