"""Class means and affinities, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distillation.affinities import class_means, cosine_affinity, pool_patches, shrink_mask


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_class_means_are_per_image_over_the_pixels_of_the_class() -> None:
    maps = draw(2, 5, 3, 4)
    mask = torch.tensor([[[0, 0, 1, 1], [0, 2, 1, 1], [0, 0, 0, 2]], [[1] * 4] * 3], dtype=torch.uint8)
    means, present = class_means(maps, mask, classes=3)
    assert present.tolist() == [[True, True, True], [False, True, False]]
    for image, label in np.argwhere(present.numpy()):
        expected = maps[image].numpy()[:, mask[image].numpy() == label].mean(axis=1)
        np.testing.assert_allclose(means[image, label].numpy(), expected, rtol=1e-5)
    assert not means[~present].any()


def test_a_mask_is_shrunk_to_the_pixel_in_the_middle() -> None:
    mask = torch.arange(9 * 6, dtype=torch.uint8).view(1, 9, 6)
    expected = mask.numpy()[0, 1::3][:, [1, 4]]
    np.testing.assert_array_equal(shrink_mask(mask, (3, 2))[0].numpy(), expected)
    assert torch.equal(shrink_mask(mask, (9, 6)), mask.long())


def test_a_lesion_smaller_than_the_stride_can_be_lost() -> None:
    mask = torch.zeros(1, 96, 96, dtype=torch.uint8)
    mask[:, 8:12, 8:12] = 1
    present = {stride: class_means(draw(1, 2, 96 // stride, 96 // stride), mask, 2)[1] for stride in (4, 8)}
    assert {stride: classes.tolist() for stride, classes in present.items()} == {4: [[True, True]], 8: [[True, False]]}


def test_class_means_see_the_shrunk_mask() -> None:
    mask = torch.zeros(1, 6, 6, dtype=torch.uint8)
    mask[:, :3] = 1
    maps = torch.tensor([[[[5.0, 7.0], [1.0, 3.0]]]])
    means, _ = class_means(maps, mask, classes=2)
    assert means.flatten().tolist() == [2.0, 6.0]


def test_affinity_is_the_cosine_of_every_two_pixels() -> None:
    maps = draw(2, 5, 3, 4)
    vectors = maps.double().numpy().reshape(2, 5, 12)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(cosine_affinity(maps).numpy(), np.einsum("bcn,bcm->bnm", vectors, vectors), atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-30])
def test_affinity_of_vanishing_maps_has_a_bounded_gradient(scale: float) -> None:
    maps = (scale * draw(1, 3, 2, 2)).requires_grad_()
    affinity = cosine_affinity(maps)
    (affinity - 1).square().sum().backward()
    assert affinity.isfinite().all() and maps.grad is not None and maps.grad.isfinite().all()


@pytest.mark.parametrize(("size", "expected"), [((5, 7), (3, 4)), ((32, 20), (16, 10)), ((256, 100), (32, 13))])
def test_there_are_no_more_than_32_patches_in_a_row(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert pool_patches(torch.zeros(1, 2, *size), patch=2).shape[2:] == expected
