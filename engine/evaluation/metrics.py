"""Segmentation scores of one case, over the whole volume.

Definitions follow the challenges (LiTS, KiTS) and nnU-Net: what is undefined is NaN, never a perfect or a
worst score. Both masks empty: everything NaN. One empty: Dice 0, VOE 1, NSD 0, distances NaN.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

Mask = NDArray[np.bool_]

OVERLAP = ("dice", "voe", "rvd", "abs_rvd")
DISTANCE = ("hd95_mm", "assd_mm", "nsd_1mm")
LESION = ("lesion_f1",)
PROBABILITY = ("argmax_dice", "ece")  # what masks alone do not tell
METRICS = (*OVERLAP, *PROBABILITY, *DISTANCE, *LESION)

SMALLEST_LESION = 3  # voxels; smaller components are noise in the reference as in the prediction
HIT_IOU = 0.1


def voxel_counts(predicted: Mask, reference: Mask) -> tuple[int, int, int]:
    """Of the prediction, of the reference, and of what they share."""
    return int(predicted.sum()), int(reference.sum()), int((predicted & reference).sum())


def overlap_scores(predicted: int, reference: int, shared: int) -> dict[str, float]:
    """Dice, VOE = 1 - IoU, RVD = (P - R) / R and its absolute value, from voxel counts."""
    if predicted == 0 and reference == 0:
        return dict.fromkeys(OVERLAP, math.nan)
    rvd = (predicted - reference) / reference if reference else math.nan
    return {
        "dice": 2 * shared / (predicted + reference),
        "voe": 1 - shared / (predicted + reference - shared),
        "rvd": rvd,
        "abs_rvd": abs(rvd),
    }


def lesion_scores(predicted: Mask, reference: Mask) -> dict[str, float]:
    """F1 of detecting lesions: 26-connected components of at least 3 voxels, a hit at IoU >= 0.1, one to one."""
    predicted_lesions, predicted_sizes = _components(predicted)
    true_lesions, true_sizes = _components(reference)
    lesions = len(true_sizes) + len(predicted_sizes)
    if not lesions:
        return {"lesion_f1": math.nan}
    shared = np.zeros((len(true_sizes), len(predicted_sizes)))
    both = (true_lesions > 0) & (predicted_lesions > 0)
    np.add.at(shared, (true_lesions[both] - 1, predicted_lesions[both] - 1), 1)
    iou = shared / (true_sizes[:, None] + predicted_sizes[None, :] - shared)
    pairs = linear_sum_assignment(iou >= HIT_IOU, maximize=True)
    hits = int((iou[pairs] >= HIT_IOU).sum())
    return {"lesion_f1": 2 * hits / lesions}


def _components(mask: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """26-connected components of at least `SMALLEST_LESION` voxels, numbered from 1, and their sizes."""
    numbered, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)
    kept = np.flatnonzero(sizes[1:] >= SMALLEST_LESION) + 1
    renumber = np.zeros(count + 1, np.int64)
    renumber[kept] = np.arange(1, len(kept) + 1)
    return renumber[numbered], sizes[kept]


def case_scores(
    predicted: Mask, reference: Mask, spacing: tuple[float, float, float] | None
) -> dict[str, float | None]:
    """Voxel counts and all metrics of one region of one case that its masks [Z, Y, X] tell.

    spacing: (z, y, x) in mm; None where it is unknown or the slices are not neighbours: then what needs
    three dimensions is None, "not available".
    """
    predicted_voxels, reference_voxels, shared = voxel_counts(predicted, reference)
    scores: dict[str, float | None] = {
        "reference_voxels": reference_voxels,
        "predicted_voxels": predicted_voxels,
        **overlap_scores(predicted_voxels, reference_voxels, shared),
    }
    if spacing is None:
        return {**scores, **dict.fromkeys((*DISTANCE, *LESION))}
    # Imported here because it loads MONAI, which takes seconds and which training does not need.
    from engine.evaluation.surface_distances import distance_scores

    # Neither changes when the empty space around both masks is cut away, and both take much longer with it.
    box = foreground_box(predicted | reference)
    masks = predicted[box], reference[box]
    return {**scores, **distance_scores(*masks, spacing), **lesion_scores(*masks)}


def foreground_box(mask: Mask) -> tuple[slice, slice, slice]:
    """The smallest box that holds a mask [Z, Y, X]; it is empty where the mask is."""
    box: list[slice] = []
    for axis in range(3):
        lines = mask[tuple(box)].any(axis=tuple(other for other in range(3) if other != axis))
        found = np.flatnonzero(lines)
        box.append(slice(found[0], found[-1] + 1) if len(found) else slice(0))
    z, y, x = box
    return z, y, x


def published_scores(predicted: float, reference: float, shared: float) -> dict[str, float] | None:
    """The published code's scores from one case's pixel counts; None where the reference is empty.

    Its "VOE" counts false positives only, so an empty prediction scores a perfect 0; it is kept here only
    to compare with published tables.
    """
    if reference == 0:
        return None
    return {
        "dice": (2 * shared + 1) / (predicted + reference + 1),
        "published_voe": 2 * (predicted - shared) / (predicted + reference + 1e-7),
        "rvd": predicted / (reference + 1e-7) - 1,
    }
