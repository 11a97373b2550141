"""The Dice that a coarse map of logits can reach at most: it is fitted to the truth itself."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.frame import Frame
from datasets.labelled_cases import LabelledCase
from datasets.labels import LabelMap
from engine.evaluation.metrics import case_scores
from engine.evaluation.score import RegionScores
from networks.contract import resize
from utils.batch import most_probable

LEARNING_RATE = 3.0  # sharp edges need large logits, and Adam's steps are of this size
BATCH = 8  # slices at once on the way back to the source's size


def ceiling_scores(
    case: LabelledCase, label_map: LabelMap, frame: Frame, stride: int, steps: int, device: torch.device
) -> list[RegionScores]:
    """Overlap of every region of a case, as `score_case` has it, for the best logits of one to `stride` pixels found.

    What frame and upsampling lose counts too: they are those of a network that is used.
    """
    reference = label_map.encode(case.label)
    truth = frame.labels(torch.from_numpy(reference)).to(device)
    shape = (truth.shape[1], truth.shape[2])
    logits = fit_logits(truth, label_map.num_classes, math.ceil(shape[0] / stride), math.ceil(shape[1] / stride), steps)
    decided = [
        most_probable(frame.back(resize(part, shape).softmax(dim=1), reference.shape[1:])).cpu()
        for part in logits.split(BATCH)
    ]
    predicted = torch.cat(decided).numpy()
    return [
        {
            "case": case.name,
            "region": region,
            **case_scores(np.isin(predicted, classes), np.isin(reference, classes), spacing=None),
        }
        for region, classes in label_map.regions.items()
    ]


def fit_logits(truth: Tensor, classes: int, rows: int, columns: int, steps: int) -> Tensor:
    """Logits [N, C, rows, columns] whose upsampled softmax has the highest soft Dice with the classes [N, H, W].

    Dice is pooled over the slices, as over a case. Adam climbs from the shares of the classes below each logit, so
    what it finds is a lower bound, and a close one. Slices without a target stay background.
    """
    logits = 8 * F.adaptive_avg_pool2d(_one_hot(truth, classes), (rows, columns))
    targets = (truth > 0).any(dim=(1, 2))
    wanted = _one_hot(truth[targets], classes)[:, 1:].contiguous()
    volumes = wanted.sum(dim=(0, 2, 3))
    if not volumes.any():
        return logits
    down, across = _upsampling(rows, truth.shape[1], truth.device), _upsampling(columns, truth.shape[2], truth.device)
    fitted = logits[targets].requires_grad_()
    optimizer = torch.optim.Adam([fitted], LEARNING_RATE)
    for _ in range(steps):
        predicted = (down @ fitted @ across.T).softmax(dim=1)[:, 1:]
        sizes = predicted.sum(dim=(0, 2, 3)) + volumes
        # A class that is nowhere may be predicted nowhere, and 0 / 0 would spoil the others.
        dice = 2 * (predicted * wanted).sum(dim=(0, 2, 3)) / sizes.clamp_min(1)
        optimizer.zero_grad()
        (-dice.sum()).backward()
        optimizer.step()
    logits[targets] = fitted.detach()
    return logits


def _one_hot(truth: Tensor, classes: int) -> Tensor:
    return F.one_hot(truth.long(), classes).movedim(-1, 1).float()


def _upsampling(size: int, side: int, device: torch.device) -> Tensor:
    """`resize` along one axis as a matrix [side, size]: a product is many times faster than its gradient."""
    return resize(torch.eye(size, device=device)[None, :, :, None], (side, 1))[0, :, :, 0].T
