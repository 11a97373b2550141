"""Prototypes of a volumetric teacher."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from distillation.distiller import Distiller
from networks.contract import Features
from tests.contracts.methods import MethodContract, tiny_distiller
from tests.golden.arrays import Array, array, log_softmax_array
from tests.golden.logits import channels, equation_of, random_logits, random_mask, terms_of
from tests.small import make_method
from utils.batch import Batch


class TestPrototypes(MethodContract):
    name = "prototypes"
    # The tiny networks' logits hardly vary: what correlates in half precision is mostly their rounding.
    half_tolerance = 0.5
    steepness = 1e4

    def learner(self, pair: str) -> Distiller:
        """With two classes the last bias gets no gradient but rounding."""
        return tiny_distiller(self.name, pair, classes=3)


def block_logits(classes: int) -> torch.Tensor:
    return 3 * torch.randn(2, classes, 3, 7, 5, generator=torch.Generator().manual_seed(4))


def terms(method: str, student: torch.Tensor, block: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    teacher = Features((), (), block[:, :, 1], Features((), (), block))
    batch = Batch(torch.zeros(2, 1, 7, 5), mask, ["a", "b"])
    classes = student.shape[1]
    return make_method(method, channels(classes), channels(classes))(Features((), (), student), teacher, batch)


def targets_array(logits: Array, mask: Array) -> Array:
    """[B * H * W, C]: the centroid of each pixel's class, voxel by voxel."""
    found = []
    for image, classes in zip(logits, mask, strict=True):
        voxels = np.exp(log_softmax_array(image.reshape(len(image), -1).T))
        centroids = [np.average(voxels, axis=0, weights=voxels[:, c]) for c in range(len(image))]
        found += [centroids[c] for c in classes.ravel()]
    return np.stack(found)


@pytest.mark.parametrize("temperature", [1, 4])
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_terms_are_golden(classes: int, temperature: int) -> None:
    student, block, mask = random_logits(classes, 1), block_logits(classes), random_mask(classes)
    p = np.exp(log_softmax_array(array(student) / temperature)).transpose(0, 2, 3, 1).reshape(-1, classes)
    q = targets_array(array(block) / temperature, mask.numpy())
    inter, intra = (stats.pearsonr(p, q, axis=axis).statistic.mean() for axis in (1, 0))
    found = terms(f"prototypes,beta=2,gamma=3,temperature={temperature}", student, block, mask)
    scale = temperature**2
    expected = {"inter": 2 * scale * (1 - inter), "intra": 3 * scale * (1 - intra)}
    assert {name: term.item() for name, term in found.items()} == pytest.approx(expected, rel=1e-5)


def test_a_student_that_predicts_the_centroids_has_nothing_left_to_learn() -> None:
    block, mask = block_logits(3), random_mask(3)
    targets = torch.from_numpy(targets_array(array(block), mask.numpy())).float()
    student = targets.reshape(2, 7, 5, 3).permute(0, 3, 1, 2).log()
    assert all(term.item() == pytest.approx(0, abs=1e-5) for term in terms("prototypes", student, block, mask).values())


def test_the_block_decides_also_with_two_classes() -> None:
    student, mask = random_logits(2, 1), random_mask(2)
    one, other = (terms("prototypes", student, block_logits(2) * scale, mask)["intra"].item() for scale in (1, 0.2))
    assert abs(one - other) > 1e-4


def test_a_teacher_of_slices_has_the_centroids_of_its_slices() -> None:
    student, logits, mask = random_logits(3, 1), random_logits(3, 2), random_mask(3)
    found = terms_of("prototypes", student, logits, mask)
    expected = terms("prototypes", student, logits.detach().unsqueeze(2).expand(-1, -1, 3, -1, -1), mask)
    assert {k: v.item() for k, v in found.items()} == pytest.approx({k: v.item() for k, v in expected.items()})


def test_its_equation_says_what_it_compares() -> None:
    assert "intra(centroids(t_logits), s_logits)" in equation_of("prototypes", 3)
