"""Metrics against values worked out by hand or by brute force, and what is undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_dice import compute_surface_dice
from monai.metrics.surface_distance import compute_average_surface_distance
from scipy import ndimage
from scipy.spatial.distance import cdist

from engine.evaluation.metrics import (
    DISTANCE,
    LESION,
    OVERLAP,
    case_scores,
    lesion_scores,
    overlap_scores,
    published_scores,
)
from engine.evaluation.summaries import mean_std_count
from engine.evaluation.surface_distances import distance_scores

SPACING = (3.0, 0.7, 0.8)
OF_MASKS = (*OVERLAP, *DISTANCE, *LESION)


def box(*corners: tuple[int, int], shape: tuple[int, int, int] = (8, 24, 24)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*corner) for corner in corners)] = True
    return mask


def test_overlap_by_hand() -> None:
    scores = overlap_scores(predicted=60, reference=40, shared=30)
    assert scores == pytest.approx({"dice": 0.6, "voe": 1 - 30 / 70, "rvd": 0.5, "abs_rvd": 0.5})
    assert overlap_scores(30, 40, 30)["rvd"] == pytest.approx(-0.25)


def test_perfect_prediction() -> None:
    mask = box((2, 6), (4, 12), (5, 15))
    voxels = {"reference_voxels": 4 * 8 * 10, "predicted_voxels": 4 * 8 * 10}
    perfect = {"dice": 1, "voe": 0, "rvd": 0, "abs_rvd": 0, "hd95_mm": 0, "assd_mm": 0, "nsd_1mm": 1, "lesion_f1": 1}
    assert case_scores(mask, mask, SPACING) == pytest.approx({**voxels, **perfect})


def test_both_empty_is_undefined_everywhere() -> None:
    empty = np.zeros((4, 8, 8), bool)
    scores = case_scores(empty, empty, SPACING)
    assert (scores["reference_voxels"], scores["predicted_voxels"]) == (0, 0)
    assert all(math.isnan(scores[metric]) for metric in OF_MASKS)


@pytest.mark.parametrize("predicted_empty", [True, False])
def test_one_empty_is_the_worst_overlap_and_no_distance(predicted_empty: bool) -> None:
    full, empty = box((2, 6), (4, 12), (5, 15)), np.zeros((8, 24, 24), bool)
    scores = case_scores(*((empty, full) if predicted_empty else (full, empty)), SPACING)
    assert (scores["dice"], scores["voe"], scores["nsd_1mm"], scores["lesion_f1"]) == (0, 1, 0, 0)
    assert math.isnan(scores["hd95_mm"]) and math.isnan(scores["assd_mm"])
    assert scores["rvd"] == -1 if predicted_empty else math.isnan(scores["rvd"])
    voxels = (scores["reference_voxels"], scores["predicted_voxels"])
    assert voxels == ((320, 0) if predicted_empty else (0, 320))


def surface(mask: np.ndarray) -> np.ndarray:
    """Millimetre positions of the voxels that have a face neighbour outside."""
    return np.argwhere(mask & ~ndimage.binary_erosion(mask)) * SPACING


@pytest.mark.parametrize("shift", [(0, 1, 0), (1, 2, 3), (2, 0, 5)])
def test_distances_equal_brute_force(shift: tuple[int, int, int]) -> None:
    reference = box((2, 5), (4, 12), (5, 15))
    predicted = np.roll(reference, shift, axis=(0, 1, 2)) | box((1, 3), (6, 9), (7, 9))
    apart = cdist(surface(predicted), surface(reference))
    there, back = apart.min(axis=1), apart.min(axis=0)
    both = np.concatenate([there, back])
    assert distance_scores(predicted, reference, SPACING) == pytest.approx(
        {
            "hd95_mm": max(np.percentile(there, 95), np.percentile(back, 95)),
            "assd_mm": both.mean(),
            "nsd_1mm": (both <= 1).mean(),
        },
        rel=1e-5,
    )


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_distances_equal_monais_own_functions() -> None:
    rng = np.random.default_rng(0)
    predicted, reference = (ndimage.gaussian_filter(rng.normal(size=(12, 40, 30)), 3) > 0.01 for _ in range(2))
    masks = [torch.from_numpy(mask)[None, None] for mask in (predicted, reference)]
    options = {"include_background": True, "spacing": list(SPACING)}
    expected = {
        "hd95_mm": float(compute_hausdorff_distance(*masks, percentile=95, **options)),
        "assd_mm": float(compute_average_surface_distance(*masks, symmetric=True, **options)),
        "nsd_1mm": float(compute_surface_dice(*masks, class_thresholds=[1.0], **options)),
    }
    assert distance_scores(predicted, reference, SPACING) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("corner", [(0, 0, 0), (3, 7, 9), (12, 20, 14)])
def test_empty_space_around_both_masks_changes_nothing(corner: tuple[int, int, int]) -> None:
    predicted, reference = box((1, 5), (4, 12), (5, 15)), box((2, 6), (5, 14), (5, 16))
    wide = [np.zeros((20, 44, 38), bool) for _ in range(2)]
    for target, mask in zip(wide, (predicted, reference), strict=True):
        target[tuple(slice(start, start + side) for start, side in zip(corner, mask.shape, strict=True))] = mask
    assert case_scores(wide[0], wide[1], SPACING) == pytest.approx(case_scores(predicted, reference, SPACING))


def test_masks_that_touch_the_border_are_measured_whole() -> None:
    reference, predicted = box((0, 8), (0, 10), (0, 24)), box((0, 8), (0, 12), (0, 24))
    assert distance_scores(predicted, reference, SPACING)["hd95_mm"] == pytest.approx(2 * 0.7)


def test_lesions_match_one_to_one_and_specks_do_not_count() -> None:
    first, second = box((1, 3), (2, 6), (2, 6)), box((4, 7), (14, 20), (14, 20))
    reference = first | second
    speck = box((7, 8), (22, 23), (22, 24))
    assert lesion_scores(first | speck, reference)["lesion_f1"] == pytest.approx(2 / 3)
    halves = box((4, 7), (14, 20), (14, 16)) | box((4, 7), (14, 20), (17, 20))
    # Both halves overlap the second lesion enough, but only one of them may claim it.
    assert lesion_scores(halves, reference)["lesion_f1"] == pytest.approx(2 * 1 / (2 + 2))


def test_lesions_join_across_corners() -> None:
    corner = box((1, 3), (2, 4), (2, 4)) | box((3, 5), (4, 6), (4, 6))
    assert lesion_scores(corner, corner)["lesion_f1"] == 1
    separate = box((1, 3), (2, 4), (2, 4))
    assert lesion_scores(separate, corner)["lesion_f1"] == 1  # IoU 0.5 of one lesion, not 1 of two


def test_a_sliver_below_a_tenth_is_no_hit() -> None:
    assert lesion_scores(box((2, 3), (2, 5), (2, 3)), box((2, 6), (2, 10), (2, 10)))["lesion_f1"] == 0


def test_without_spacing_what_needs_three_dimensions_is_not_available() -> None:
    mask = box((2, 6), (4, 12), (5, 15))
    scores = case_scores(mask, mask, None)
    assert set(scores) == {"reference_voxels", "predicted_voxels", *OF_MASKS}
    assert all(scores[metric] is None for metric in (*DISTANCE, *LESION))
    assert scores["dice"] == 1


def test_published_voe_rewards_an_empty_prediction() -> None:
    scores = published_scores(predicted=0, reference=50, shared=0)
    assert scores is not None
    assert scores["published_voe"] == 0
    assert scores["dice"] == pytest.approx(1 / 51)
    assert published_scores(10, 0, 0) is None


def test_summaries_count_only_what_is_defined() -> None:
    assert mean_std_count([0.5, math.nan, 0.7, None]) == pytest.approx(
        {"mean": 0.6, "std": math.sqrt(0.02), "count": 2}
    )
    assert mean_std_count([math.nan]) == {"mean": None, "std": None, "count": 0}
    assert mean_std_count([0.5])["std"] is None


def test_a_shift_by_one_slice_is_within_1_mm_however_the_spacing_was_rounded() -> None:
    reference = np.zeros((12, 20, 20), bool)
    reference[2:8, 4:14, 4:14] = True
    shifted = np.roll(reference, 1, axis=0)
    assert distance_scores(shifted, reference, (1.0000005, 0.8, 0.8))["nsd_1mm"] == 1
    assert distance_scores(shifted, reference, (1.001, 0.8, 0.8))["nsd_1mm"] < 1
