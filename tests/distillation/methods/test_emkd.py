"""EMKD against NumPy, and which regions count."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch

from distillation.methods.emkd import region_affinity_distance
from networks.contract import Channels
from tests.contracts.methods import MethodContract
from tests.golden.arrays import Array, assert_terms, attention_array, kl_array, stage_array
from tests.golden.features import IMAGE_SIZE, STUDENT, STUDENT_SIZES, TEACHER, TEACHER_SIZES, random_features
from tests.small import make_method
from utils.batch import Batch


class TestEMKD(MethodContract):
    name, same_level = "emkd", True


def shrunk(mask: Array, size: tuple[int, int]) -> Array:
    rows, columns = (np.floor((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(size, mask.shape, strict=True))
    return mask[np.ix_(rows, columns)]


def golden_affinity(student: Array, teacher: Array, mask: Array, classes: int) -> float:
    """The published formula, one image and one pair of classes after another."""
    differences = []
    for s, t, m in zip(student, teacher, mask, strict=True):
        masks = [shrunk(m, maps.shape[1:]) for maps in (s, t)]
        present = [k for k in range(classes) if all((each == k).any() for each in masks)]
        contrasts = []
        for maps, each in zip((s, t), masks, strict=True):
            means = {k: maps[:, each == k].mean(axis=1) for k in present}
            cosines = [
                means[i] @ means[j] / (np.linalg.norm(means[i]) * np.linalg.norm(means[j]))
                for i, j in combinations(present, 2)
            ]
            contrasts.append(np.mean(cosines) if cosines else 0.0)
        differences.append((contrasts[0] - contrasts[1]) ** 2)
    return float(np.mean(differences))


def mask_of(classes: int) -> torch.Tensor:
    """The last class is a block in the second image alone."""
    mask = torch.zeros(2, *IMAGE_SIZE, dtype=torch.uint8)
    mask[:, 3:9, 4:13] = 1
    mask[1, 6:, 8:] = classes - 1
    return mask


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    ("channels", "sizes"), [(TEACHER, TEACHER_SIZES), (STUDENT, STUDENT_SIZES)], ids=["equal", "unequal"]
)
def test_terms_are_golden(channels: Channels, sizes: tuple[tuple[int, int], ...], classes: int) -> None:
    student_channels, teacher_channels = replace(channels, classes=classes), replace(TEACHER, classes=classes)
    student = random_features(student_channels, sizes, seed=1)
    teacher = random_features(teacher_channels, TEACHER_SIZES, seed=2)
    mask = mask_of(classes)
    s, t, m = partial(stage_array, student), partial(stage_array, teacher), mask.numpy()
    expected = {
        "pmd_logits": 0.1 * kl_array(s("logits"), t("logits")),
        **{f"imd_{e}": 0.9 * attention_array(s(e), t(e)) for e in ("e1", "e3")},
        **{f"rad_{e}": 0.9 * golden_affinity(s(e), t(e), m, classes) for e in ("e1", "e3")},
    }
    batch = Batch(torch.zeros(2, 1, *IMAGE_SIZE), mask, ["a", "b"])
    terms = make_method("emkd", student_channels, teacher_channels)(student, teacher, batch)
    assert_terms(terms, expected, rel=1e-4)


class TestRegionAffinity:
    student, teacher = (torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    halves = torch.arange(6).view(1, 6, 1).expand(1, 6, 6) // 3

    def test_an_absent_class_changes_nothing(self) -> None:
        two, three = (region_affinity_distance(self.student, self.teacher, self.halves, n) for n in (2, 3))
        assert two.item() == three.item() > 0

    def test_an_image_of_one_class_adds_nothing_to_the_mean(self) -> None:
        alone = region_affinity_distance(self.student, self.teacher, self.halves, 2)
        mask = torch.cat((self.halves, torch.zeros_like(self.halves)))
        pair = (maps.repeat(2, 1, 1, 1) for maps in (self.student, self.teacher))
        assert region_affinity_distance(*pair, mask, 2).item() == pytest.approx(alone.item() / 2)

    def test_a_class_that_one_of_the_maps_is_too_coarse_for_does_not_count(self) -> None:
        mask = torch.zeros(1, 6, 6, dtype=torch.uint8)
        mask[:, 0, 0] = 1
        coarse = self.teacher[:, :, :2, :2]
        assert region_affinity_distance(self.student, coarse, mask, 2).item() == 0
        assert region_affinity_distance(self.student, self.teacher, mask, 2).item() > 0

    def test_only_the_angle_between_regions_counts(self) -> None:
        turned = self.teacher.flip(1)
        other, scaled = (
            region_affinity_distance(maps, self.teacher, self.halves, 2) for maps in (self.student, 3 * turned)
        )
        assert scaled.item() < 1e-6 * other.item()


def test_equation() -> None:
    assert make_method("emkd", STUDENT, TEACHER).equation() == (
        "0.1 KL(t_logits -> s_logits) + 0.9 (AT(t_e1 -> s_e1) + AT(t_e3 -> s_e3))"
        " + 0.9 (RA(t_e1 -> s_e1) + RA(t_e3 -> s_e3))"
    )
