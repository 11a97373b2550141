"""Samples and batches: their form, and that nothing but seed, epoch and index decides them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datasets.augment import AUGMENTS, get_augment
from datasets.frame import Frame
from datasets.loader import EpochBatches, SliceDataset, make_loader
from datasets.raw import open_layout
from datasets.slices.slice_folder import SliceFolder
from datasets.slicing.slicemaker import make_slices
from datasets.window import percentiles, window_image
from tests.data import ct_and_label, kits_case
from utils.errors import UserError
from utils.seeding import generator

FRAME = Frame(32, 24)


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> SliceFolder:
    """Three cases, the last one of another size."""
    root = tmp_path_factory.mktemp("data")
    for number, width in enumerate((24, 24, 40)):
        kits_case(root / "raw", number, (8, 20, width))
    layout = open_layout("kits", root / "raw")
    task = layout.label_map("all")
    make_slices(root / "raw", root / "out", layout, task, val_fraction=0, slices="all", workers=1)
    return SliceFolder.open(root / "out", "kits", "all")


def test_a_sample_is_the_windowed_and_framed_slice(slices: SliceFolder) -> None:
    dataset = SliceDataset(slices, ["00001_6.npz"], Frame(0, 0))
    image, mask, case = dataset[0, 0]
    ct, label = (volume[1] for volume in ct_and_label(seed=1))
    assert (image.shape, image.dtype, mask.shape, mask.dtype) == ((1, 20, 24), torch.float32, (20, 24), torch.uint8)
    np.testing.assert_allclose(image[0], (np.clip(ct, -200.0, 300.0) + 200) / 250 - 1, atol=1e-6)
    np.testing.assert_array_equal(mask, label)
    assert case == "00001"


def test_another_window_can_be_given(slices: SliceFolder) -> None:
    image, _, _ = SliceDataset(slices, ["00001_6.npz"], Frame(0, 0), window=(-1000.0, 1000.0))[0, 0]
    np.testing.assert_allclose(image[0], ct_and_label(seed=1)[0][1] / 1000, atol=1e-6)


@pytest.mark.parametrize("augment", AUGMENTS)
def test_seed_epoch_and_index_decide_alone(slices: SliceFolder, augment: str) -> None:
    first, second = (SliceDataset(slices, slices.train, FRAME, augment, seed=5) for _ in range(2))
    items = [(epoch, i) for epoch in range(2) for i in range(len(first))]
    samples = {item: first[item] for item in items}
    for item in reversed(items):
        image, mask, _ = second[item]
        assert torch.equal(image, samples[item][0]) and torch.equal(mask, samples[item][1])
    differ = any(not torch.equal(samples[0, i][0], samples[1, i][0]) for i in range(len(first)))
    assert differ == (augment != "none")


@pytest.mark.parametrize("augment", AUGMENTS)
def test_augmented_samples_keep_their_form(slices: SliceFolder, augment: str) -> None:
    dataset = SliceDataset(slices, slices.train, FRAME, augment)
    for epoch in range(3):
        for i in range(len(dataset)):
            image, mask, _ = dataset[epoch, i]
            assert type(image) is type(mask) is torch.Tensor
            assert (image.shape, mask.shape) == ((1, 24, 24), (24, 24))
            assert (image.dtype, mask.dtype) == (torch.float32, torch.uint8)
            assert float(image.abs().max()) <= 1 and set(mask.unique().tolist()) <= {0, 1, 2}


def test_image_and_mask_move_together() -> None:
    mask = torch.zeros(64, 64, dtype=torch.uint8)
    mask[10:40, 20:35] = 1
    for name in ("paper", "strong"):
        for i in range(30):
            image, moved = get_augment(name)(mask[None] * 2.0 - 1, mask, generator(0, i))
            assert float(((image[0] > 0) != (moved > 0)).sum()) <= 0.05 * float(mask.sum())


def test_paper_gives_all_eight_flips_and_turns() -> None:
    mask = torch.arange(16, dtype=torch.uint8).reshape(4, 4)
    seen = {
        tuple(get_augment("paper")(mask[None].float(), mask, generator(0, i))[1].flatten().tolist()) for i in range(200)
    }
    assert len(seen) == 8
    wide = torch.zeros(1, 4, 6)
    assert all(get_augment("paper")(wide, wide[0], generator(0, i))[0].shape == (1, 4, 6) for i in range(20))


def test_wrong_augmentation() -> None:
    with pytest.raises(UserError, match="choose one of none, paper, strong"):
        get_augment("wild")


class TestLoader:
    def test_batches(self, slices: SliceFolder) -> None:
        loader, batches = make_loader(slices, slices.train, FRAME, "paper", 3, 0, 0)
        batches.set(4)
        seen = list(loader)
        assert len(seen) == len(loader) == -(-len(slices.train) // 3)
        assert seen[0].image.shape == (3, 1, 24, 24) and seen[0].mask.shape == (3, 24, 24)
        assert sorted(case for batch in seen for case in batch.cases) == sorted(
            name.split("_")[0] for name in slices.train
        )

    def test_workers_change_nothing(self, slices: SliceFolder) -> None:
        results = []
        for workers in (0, 2):
            loader, batches = make_loader(slices, slices.train, FRAME, "paper", 4, 1, workers)
            batches.set(2)
            results.append(list(loader))
        for alone, parallel in zip(*results, strict=True):
            assert torch.equal(alone.image, parallel.image) and alone.cases == parallel.cases

    def test_an_epoch_can_be_continued(self, slices: SliceFolder) -> None:
        loader, batches = make_loader(slices, slices.train, FRAME, "paper", 4, 1, 0)
        batches.set(3)
        whole = list(loader)
        batches.set(3, start_batch=2)
        rest = list(loader)
        assert len(rest) == len(loader) == len(whole) - 2
        assert all(torch.equal(a.image, b.image) for a, b in zip(whole[2:], rest, strict=True))

    def test_sizes_that_differ_are_told(self, slices: SliceFolder) -> None:
        loader, _ = make_loader(slices, ["00000_6.npz", "00002_6.npz"], Frame(0, 0), "none", 2, 0, 0)
        with pytest.raises(UserError, match="slices of 00000, 00002 differ in size"):
            next(iter(loader))


class TestEpochBatches:
    def test_every_sample_once_and_another_order_each_epoch(self) -> None:
        batches = EpochBatches(10, 4, seed=0)
        orders = []
        for epoch in range(2):
            batches.set(epoch)
            dealt = list(batches)
            assert [len(batch) for batch in dealt] == [4, 4, 2]
            assert all(e == epoch for batch in dealt for e, _ in batch)
            orders.append([i for batch in dealt for _, i in batch])
            assert sorted(orders[-1]) == list(range(10))
        assert orders[0] != orders[1]

    def test_drop_last(self) -> None:
        assert [len(batch) for batch in EpochBatches(10, 4, seed=0, drop_last=True)] == [4, 4]

    @pytest.mark.parametrize("n", [16, 17, 19, 23])
    def test_ranks_share_an_epoch(self, n: int) -> None:
        shards = [list(EpochBatches(n, 2, seed=0, rank=rank, world=4)) for rank in range(4)]
        assert len({len(shard) for shard in shards}) == 1
        assert all(batch for shard in shards for batch in shard)
        dealt = [i for shard in shards for batch in shard for _, i in batch]
        assert set(dealt) == set(range(n)) and len(dealt) <= n + 3

    def test_two_ranks_see_the_batches_of_one(self) -> None:
        alone = list(EpochBatches(16, 4, seed=0))
        shards = [list(EpochBatches(16, 2, seed=0, rank=rank, world=2)) for rank in range(2)]
        for together, *parts in zip(alone, *shards, strict=True):
            assert sorted(together) == sorted(item for part in parts for item in part)


def test_window_image() -> None:
    image = np.array([-32768, -200, 50, 300, 32767], np.int16)
    windowed = window_image(image, -200, 300)
    assert windowed.dtype == np.float32
    np.testing.assert_allclose(windowed, [-1, -1, 0, 1, 1], atol=1e-6)


def test_percentiles_are_those_of_numpy() -> None:
    image = np.random.default_rng(0).normal(0, 3000, (5, 17, 13)).astype(np.int16)
    percents = (0, 0.5, 37, 99.5, 100)
    assert percentiles(image, *percents) == pytest.approx(np.percentile(image, percents))
