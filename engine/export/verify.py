"""Whether an exported network computes what PyTorch does, at two sizes and two batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.export.fold import differs_by
from networks.contract import SegmentationNetwork
from utils.batch import most_probable
from utils.errors import UserError

BATCHES = (1, 2)
LARGEST_DIFFERENCE = 1e-4  # of the largest logit
EQUAL_LABELS = 0.9999


def sizes_to_check(side: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) in pixels: the side that the network sees, and a smaller size that no stride divides."""
    return (side, side), (side * 3 // 4 + 1, side // 2 + 3)


def verify(
    path: Path, network: SegmentationNetwork, run: Callable[[Tensor], Tensor], sizes: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    """What was checked, for the file's metadata; UserError if the results differ.

    path: what the error calls the file; run: what it computes; sizes: (height, width) of images to try.
    """
    worst, least = 0.0, 1.0
    for (height, width), batch in product(sizes, BATCHES):
        image = smooth_noise(batch, height, width)
        with torch.no_grad():
            expected, logits = network(image), run(image)
        difference = differs_by(logits, expected)
        worst = max(worst, difference)
        if difference <= LARGEST_DIFFERENCE:
            equal = most_probable(logits) == most_probable(expected)
            least = min(least, float(equal.float().mean()))
        if difference > LARGEST_DIFFERENCE or least < EQUAL_LABELS:
            raise UserError(
                f"{path}: differs from PyTorch at {batch} x {height} x {width}, by {difference:.1g} of the largest "
                f"logit, with {least:.4%} of the labels equal, and was not kept; export another network, or report this"
            )
    return {
        "sizes": [list(size) for size in sizes],
        "batches": list(BATCHES),
        "largest_difference": float(f"{worst:.2g}"),
        "equal_labels": least,
    }


def smooth_noise(batch: int, height: int, width: int) -> Tensor:
    """Images [batch, 1, height, width] in [-1, 1]: blurred shapes and fine noise, the same at every call."""
    draws = torch.Generator().manual_seed(0)
    coarse = torch.randn(batch, 1, 8, 8, generator=draws)
    noise = torch.randn(batch, 1, height, width, generator=draws)
    shapes = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    return (0.8 * shapes + 0.1 * noise).clamp(-1, 1)
