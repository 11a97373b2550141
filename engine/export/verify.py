"""Whether an exported network computes what PyTorch does, at two sizes and two batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
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
REMEDY = "export another network, or report this"


def sizes_to_check(side: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) in pixels: the side that the network sees, and a smaller size that no stride divides."""
    return (side, side), (side * 3 // 4 + 1, side // 2 + 3)


def verify(
    path: Path, network: SegmentationNetwork, run: Callable[[Tensor], Tensor], sizes: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    """What was checked, for the file's metadata; UserError if the results differ.

    path: what the error calls the file; run: what it computes; sizes: (height, width) of images to try.
    """
    worst, equal, labels = 0.0, 0, 0
    for (height, width), batch in product(sizes, BATCHES):
        image = smooth_noise(batch, height, width)
        with torch.no_grad():
            logits = run(image)
            expected = _expected(network, image, logits)
        difference = differs_by(logits, expected)
        worst = max(worst, difference)
        if difference > LARGEST_DIFFERENCE:
            raise UserError(
                f"{path}: differs from PyTorch at {batch} x {height} x {width}, by {difference:.1g} of the largest "
                f"logit, and was not kept; {REMEDY}"
            )
        equal += int((most_probable(logits) == most_probable(expected)).sum())
        labels += batch * height * width
    share = equal / labels
    if share < EQUAL_LABELS:
        raise UserError(f"{path}: only {share:.4%} of its labels are PyTorch's, and it was not kept; {REMEDY}")
    return {
        "sizes": [list(size) for size in sizes],
        "batches": list(BATCHES),
        "largest_difference": float(f"{worst:.2g}"),
        "equal_labels": share,
    }


def _expected(network: SegmentationNetwork, image: Tensor, logits: Tensor) -> Tensor:
    """PyTorch's logits: in float32 or, where that is too far from these and float64 is nearer, in float64.

    Its group norm in float32 may be off by over 1e-4 of the largest logit on a CPU, which no other runtime repeats.
    """
    expected: Tensor = network(image)
    if differs_by(logits, expected) <= LARGEST_DIFFERENCE:
        return expected
    exact: Tensor = deepcopy(network).double()(image.double()).float()
    return min(expected, exact, key=partial(differs_by, logits))


def smooth_noise(batch: int, height: int, width: int) -> Tensor:
    """Images [batch, 1, height, width] in [-1, 1]: blurred shapes and fine noise, the same at every call."""
    draws = torch.Generator().manual_seed(0)
    coarse = torch.randn(batch, 1, 8, 8, generator=draws)
    noise = torch.randn(batch, 1, height, width, generator=draws)
    shapes = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    return (0.8 * shapes + 0.1 * noise).clamp(-1, 1)
