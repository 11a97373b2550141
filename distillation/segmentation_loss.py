"""The loss against the reference masks: half focal, half Dice."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from utils.batch import Batch, has_mask

SLICE_DIMS = (1, 2, 3)


def segmentation_loss(logits: Tensor, mask: Tensor, detached: bool = False) -> dict[str, Tensor]:
    """{"focal": 0.5 focal, "dice": 0.5 (1 - Dice)} of logits [B, C, H, W] and class indices [B, H, W].

    focal: the mean over pixels of -(1 - p_t)^2 log p_t (T.-Y. Lin, P. Goyal, R. Girshick, K. He, P. Dollar:
    Focal Loss for Dense Object Detection, ICCV 2017, gamma 2); `detached` keeps gradients out of (1 - p_t)^2.
    Dice: soft, pooled over the foreground classes and the whole batch, smooth 1 (F. Milletari, N. Navab,
    S.-A. Ahmadi: V-Net, 3DV 2016).
    Slices whose mask is `UNLABELLED` count in neither; where all are, both terms and their gradients are 0.
    """
    # Weights of 0 or 1: indexing with `labelled` would make the host wait for a GPU.
    labelled = has_mask(mask)
    weights = labelled.float()
    log_p = F.log_softmax(logits.float(), dim=1)
    target = (mask * labelled[:, None, None]).long().unsqueeze(1)
    log_pt = log_p.gather(1, target)
    pt = log_pt.exp()
    slice_focal = -((1 - (pt.detach() if detached else pt)).square() * log_pt).mean(SLICE_DIMS)
    focal = (weights * slice_focal).sum() / weights.sum().clamp(min=1)

    foreground = target > 0
    overlap = (weights * (pt * foreground).sum(SLICE_DIMS)).sum()
    total = (weights * (log_p[:, 1:].exp().sum(SLICE_DIMS) + foreground.sum(SLICE_DIMS))).sum()
    dice = (2 * overlap + 1) / (total + 1)
    return {"focal": 0.5 * focal, "dice": 0.5 * (1 - dice)}


def batch_loss(logits: Tensor, batch: Batch, detached: bool = False) -> dict[str, Tensor]:
    """`segmentation_loss` against the batch's masks; after mixup, of both masks in the images' shares.

    The slices of blocks, [B, C, D, H, W] and [B, D, H, W], count as so many images.
    """
    mask, other_mask = batch.mask, batch.other_mask
    if logits.ndim == 5:
        logits, mask = logits.transpose(1, 2).flatten(0, 1), mask.flatten(0, 1)
        other_mask = None if other_mask is None else other_mask.flatten(0, 1)
    terms = segmentation_loss(logits, mask, detached)
    if other_mask is None:
        return terms
    others = segmentation_loss(logits, other_mask, detached)
    return {term: batch.share * value + (1 - batch.share) * others[term] for term, value in terms.items()}


def segmentation_equation(detached: bool = False) -> str:
    """The sum of `segmentation_loss` as text."""
    return f"0.5 focal{' (p_t detached)' if detached else ''} + 0.5 (1 - Dice)"
