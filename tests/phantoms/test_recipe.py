"""Synthesised cases: HU and labels fit together, and the recipe's settings do what they say."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from phantoms.recipe import Recipe, synthesise
from phantoms.tissue import Difficulty

KITS = Recipe("kits", size=64, slices=(12, 14))
LITS = Recipe("lits", size=64, slices=(12, 14))
BOTH = pytest.mark.parametrize("recipe", [KITS, LITS], ids=["kits", "lits"])


@cache
def image_and_label(recipe: Recipe, number: int) -> tuple[np.ndarray, np.ndarray]:
    image, label, *_ = synthesise(recipe, number)
    return image, label


@BOTH
def test_labels_are_attached_tumours_in_every_case(recipe: Recipe) -> None:
    for number in range(4):
        _, label = image_and_label(recipe, number)
        assert set(np.unique(label)) == {0, 1, 2}
        near_organ = ndimage.binary_dilation(label == 1, np.ones((3, 3, 3)))
        lesions, count = ndimage.label(label == 2)
        assert all(near_organ[lesions == lesion].any() for lesion in range(1, count + 1))


def test_liver_tumours_stay_in_the_liver() -> None:
    bare = Recipe("lits", size=64, slices=(12, 14), tumour_free=1.0)
    for number in range(3):
        with_tumours, without = image_and_label(LITS, number)[1], image_and_label(bare, number)[1]
        assert not (without == 2).any()
        assert np.array_equal(with_tumours > 0, without > 0)


@BOTH
def test_tissues_have_their_hu(recipe: Recipe) -> None:
    low, high = (95, 215) if recipe.dataset == "kits" else (70, 125)
    for number in range(3):
        image, label = image_and_label(recipe, number)
        assert image.dtype == np.int16
        assert low < np.median(image[label == 1]) < high
        assert np.median(image[label == 2]) < np.median(image[label == 1]) - 10
        assert np.median(image[:, :4, :4]) == pytest.approx(-1000, abs=15)
        fat = (image > -140) & (image < -60)
        assert 0.08 < fat.mean() < 0.5
        assert 0.002 < (image > 250).mean() < 0.08


def test_cysts_are_water_and_not_tumour() -> None:
    clear = Difficulty(cysts_per_organ=(3, 3), cyst_diameter=(30, 32), cyst=(9, 11), noise=(0.5, 1))
    image, label, *_ = synthesise(Recipe("lits", size=64, slices=(12, 14), tumour_free=1, difficulty=clear), 0)
    assert ((label == 1) & (abs(image - 10) < 5)).sum() > 30


def test_difficulty_sets_contrast() -> None:
    def case(contrast: float) -> tuple[np.ndarray, np.ndarray]:
        difficulty = Difficulty(liver_tumour_contrast=(contrast, contrast), tumour_diameter=(40, 50), necrosis_share=0)
        image, label, *_ = synthesise(Recipe("lits", size=64, slices=(12, 12), difficulty=difficulty), 0)
        return image, label

    (strong, label), (weak, same) = case(-90), case(-10)
    assert np.array_equal(label, same)
    inside = ndimage.binary_erosion(label == 2)
    assert np.median(weak[inside]) - np.median(strong[inside]) == pytest.approx(80, abs=10)
