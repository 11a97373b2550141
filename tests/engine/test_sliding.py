"""Volumetric networks along a volume."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from datasets.frame import Frame
from datasets.labels import one_class
from engine.segmenter import Segmenter, class_probabilities
from engine.sliding import block_starts, mean_of_overlaps, slices_of_block
from networks.contract import Features, VolumetricNetwork

SHAPES = [(1, 1), (1, 4), (3, 8), (8, 8), (9, 8), (12, 8), (29, 8), (30, 7), (5, 1)]


@pytest.mark.parametrize(("count", "block"), SHAPES)
def test_blocks_cover_the_volume_and_overlap_by_half(count: int, block: int) -> None:
    starts = block_starts(count, block)
    covered = {int(i) for start in starts for i in slices_of_block(start, block, count)}
    assert covered == set(range(count))
    assert all(0 < after - before <= max(1, block // 2) for before, after in pairwise(starts))
    assert len(starts) == 1 or (starts[0] == 0 and starts[-1] == count - block)


def test_a_short_volume_is_in_the_middle_between_copies_of_its_ends() -> None:
    assert slices_of_block(*block_starts(3, 8), 8, 3).tolist() == [0, 0, 0, 1, 2, 2, 2, 2]


@pytest.mark.parametrize(("count", "block"), SHAPES)
def test_each_slice_is_the_mean_of_the_blocks_that_hold_it(count: int, block: int) -> None:
    draws = np.random.default_rng(0)
    starts = block_starts(count, block)
    maps = draws.normal(size=(len(starts), 2, block, 3, 4))
    expected: list[list[np.ndarray]] = [[] for _ in range(count)]
    for start, each in zip(starts, maps, strict=True):
        for i in range(block):
            if 0 <= start + i < count:
                expected[start + i].append(each[:, i])
    passes = [(starts[i : i + 2], torch.from_numpy(maps[i : i + 2])) for i in range(0, len(starts), 2)]
    found = list(mean_of_overlaps(passes, count))
    assert [i for part, _ in found for i in range(part.start, part.stop)] == list(range(count))
    means = torch.cat([values for _, values in found])
    np.testing.assert_allclose(means, np.stack([np.mean(each, axis=0) for each in expected]), rtol=1e-12)


class Brightness(VolumetricNetwork):
    """Foreground where the slice is brighter than the mean of its block."""

    encoder_channels = (1,) * 5
    block = 4

    def features(self, image: Tensor) -> Features:
        logits = torch.cat([torch.zeros_like(image), image - image.mean(dim=2, keepdim=True)], dim=1)
        return Features((), (), logits)


def segmenter() -> Segmenter:
    return Segmenter(Brightness(2), "brightness", "kits", one_class("tumor", 2), Frame(0, 0), (-100.0, 100.0))


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("count", [2, 4, 11])
def test_a_segmenter_averages_what_a_network_says_of_each_slice(count: int, batch_size: int) -> None:
    image = np.random.default_rng(count).integers(-100, 100, (count, 6, 5)).astype(np.int16)
    means = []
    for k in range(count):
        answers = []
        for start in block_starts(count, 4):
            slices = slices_of_block(start, 4, count)
            block = torch.from_numpy(image[slices] / 100).float()
            probabilities = class_probabilities(Brightness(2)(block[None, None]))[0]
            answers += [probabilities[:, i] for i in range(4) if start + i == k]
        means.append(torch.stack(answers).mean(dim=0))
    found = dict(enumerate(torch.cat([p for _, p in segmenter().probabilities(image, (-100, 100), batch_size)])))
    torch.testing.assert_close(torch.stack([found[k] for k in range(count)]), torch.stack(means))
    expected = torch.stack(means).argmax(dim=1).numpy()
    np.testing.assert_array_equal(segmenter().segment(image, (-100, 100), batch_size), expected)


def test_picked_slices_are_seen_among_their_neighbours() -> None:
    image = np.random.default_rng(0).integers(-100, 100, (11, 6, 5)).astype(np.int16)
    whole = torch.cat([p for _, p in segmenter().framed_probabilities(image, (-100, 100))])
    picked = np.array([0, 3, 4, 10])
    parts = list(segmenter().probabilities_of(image, picked, (-100, 100)))
    assert [i for part, _ in parts for i in range(part.start, part.stop)] == [0, 1, 2, 3]
    torch.testing.assert_close(torch.cat([p for _, p in parts]), whole[torch.from_numpy(picked)])
