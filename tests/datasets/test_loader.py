"""Samples and batches: their form, and that nothing but seed, epoch and index decides them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.augment import AUGMENTS, get_augment
from datasets.frame import Frame
from datasets.loader import SliceDataset, StepBatches, TrainingLoader
from datasets.raw.intensities import level_counts, percentiles
from datasets.slices.slice_folder import SliceFolder
from datasets.window import window_image
from tests.data import ct_and_label, cut_slices, kits_case
from tests.paths import ROOT
from utils.batch import UNLABELLED, Batch, has_mask, mixup
from utils.errors import UserError
from utils.seeding import generator

FRAME = Frame(32, 24)


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> SliceFolder:
    """Three cases, the last one of another size."""
    root = tmp_path_factory.mktemp("data")
    for number, width in enumerate((24, 24, 40)):
        kits_case(root / "raw", number, (8, 20, width))
    cut_slices(root / "raw", root / "out", task="all", val_fraction=0, slices="all")
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
    for name in ("mild", "paper", "strong"):
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


def test_mild_moves_in_shares_of_the_side_and_turns_no_side_to_the_other() -> None:
    """A square off the centre, at two sizes: it stays in its quarter, and moves alike in shares of the side."""
    centres = []
    for side in (40, 200):
        mask = torch.zeros(side, side, dtype=torch.uint8)
        mask[side // 5 : 2 * side // 5, 3 * side // 5 : 4 * side // 5] = 1
        moved = [get_augment("mild")(mask[None] * 2.0 - 1, mask, generator(1, i))[1] for i in range(20)]
        centres.append(torch.stack([each.nonzero().float().mean(0) / side for each in moved]))
    torch.testing.assert_close(centres[0], centres[1], atol=0.02, rtol=0)
    assert (centres[1][:, 0] < 0.5).all() and (centres[1][:, 1] > 0.5).all()
    assert (centres[1].std(0) > 0.02).all()


def test_mild_turns_slices_that_are_not_square_without_shearing_them() -> None:
    mask = torch.zeros(60, 120, dtype=torch.uint8)
    mask[20:40, 50:70] = 1
    for i in range(20):
        moved = get_augment("mild")(mask[None] * 2.0 - 1, mask, generator(0, i))[1].nonzero().float()
        spread = torch.cov(moved.T)
        assert float(spread[0, 0] / spread[1, 1]) == pytest.approx(1, abs=0.1)
        assert abs(float(spread[0, 1])) < 0.05 * float(spread[0, 0])


def test_mild_replicates_the_border() -> None:
    bright = torch.ones(1, 32, 32)
    for i in range(20):
        image, mask = get_augment("mild")(bright, torch.full((32, 32), 2, dtype=torch.uint8), generator(0, i))
        assert float(image.min()) > 0.4 and (mask == 2).all()


def test_wrong_augmentation() -> None:
    with pytest.raises(UserError, match="choose one of none, mild, paper, strong"):
        get_augment("wild")


def paper_loader(slices: SliceFolder, batch_size: int, workers: int = 0) -> TrainingLoader:
    return TrainingLoader(SliceDataset(slices, slices.train, FRAME, "paper", seed=1), batch_size, workers)


class TestLoader:
    def test_batches(self, slices: SliceFolder) -> None:
        loader = paper_loader(slices, 3)
        epoch = list(loader.between(4 * loader.steps_per_epoch, 5 * loader.steps_per_epoch))
        assert len(epoch) == loader.steps_per_epoch == -(-len(slices.train) // 3)
        assert epoch[0].image.shape == (3, 1, 24, 24) and epoch[0].mask.shape == (3, 24, 24)
        cases = sorted(case for batch in epoch for case in batch.cases)
        assert cases == sorted(name.split("_")[0] for name in slices.train)

    def test_workers_change_nothing(self, slices: SliceFolder) -> None:
        alone, parallel = (list(paper_loader(slices, 4, workers).between(5, 14)) for workers in (0, 2))
        for one, other in zip(alone, parallel, strict=True):
            assert torch.equal(one.image, other.image) and one.cases == other.cases

    def test_steps_can_be_continued_anywhere(self, slices: SliceFolder) -> None:
        loader = paper_loader(slices, 4)
        uninterrupted = list(loader.between(0, 3 * loader.steps_per_epoch))
        for start in range(1, len(uninterrupted)):
            rest = list(loader.between(start, len(uninterrupted)))
            assert all(torch.equal(a.image, b.image) for a, b in zip(uninterrupted[start:], rest, strict=True))

    def test_iterating_gives_the_first_epoch_every_time(self, slices: SliceFolder) -> None:
        loader = paper_loader(slices, 4)
        for first, again in zip(loader, loader.between(0, loader.steps_per_epoch), strict=True):
            assert torch.equal(first.image, again.image)

    def test_sizes_that_differ_are_refused(self, slices: SliceFolder) -> None:
        dataset = SliceDataset(slices, ["00000_6.npz", "00002_6.npz"], Frame(0, 0))
        with pytest.raises(UserError, match="slices of 00000, 00002 differ in size"):
            next(iter(TrainingLoader(dataset, 2, workers=0)))


def test_every_sample_comes_once_an_epoch_in_another_order_each_time() -> None:
    batches = StepBatches(10, 4, seed=0)
    batches.steps = range(6)
    drawn = list(batches)
    assert [len(batch) for batch in drawn] == [4, 4, 2, 4, 4, 2] and batches.per_epoch == 3
    orders = []
    for epoch in range(2):
        items = [item for batch in drawn[3 * epoch : 3 * epoch + 3] for item in batch]
        assert all(number == epoch for number, _ in items)
        orders.append([i for _, i in items])
        assert sorted(orders[-1]) == list(range(10))
    assert orders[0] != orders[1]


def test_a_last_batch_of_one_is_filled_from_the_start_of_its_epoch() -> None:
    batches = StepBatches(9, 4, seed=0)
    batches.steps = range(6)
    drawn = list(batches)
    assert [len(batch) for batch in drawn] == [4] * 6 and batches.per_epoch == 3
    for first, last in ((drawn[0], drawn[2]), (drawn[3], drawn[5])):
        assert last[1:] == first[:3] and last[0] not in first
    single, pair = StepBatches(3, 1, seed=0), StepBatches(3, 2, seed=0)
    assert [len(batch) for batch in single] == [1, 1, 1] and [len(batch) for batch in pair] == [2, 2]


class TestMixup:
    def loader(self, slices: SliceFolder, alpha: float, workers: int = 0) -> TrainingLoader:
        return TrainingLoader(SliceDataset(slices, slices.train, FRAME, "paper", 1), 4, workers, mixup_alpha=alpha)

    def test_an_image_is_the_mix_of_two_with_the_larger_share_its_own(self, slices: SliceFolder) -> None:
        shares = []
        plain, mixed = (self.loader(slices, alpha).between(0, 9) for alpha in (0, 1.0))
        for before, after in zip(plain, mixed, strict=True):
            assert torch.equal(before.mask, after.mask) and before.cases == after.cases
            others = (after.image - after.share * before.image) / (1 - after.share)
            for other, mask in zip(others, after.other_mask, strict=True):
                distances = (before.image - other).abs().amax((1, 2, 3))
                assert float(distances.min()) < 1e-3 and torch.equal(before.mask[distances.argmin()], mask)
            assert before.other_mask is None and 0.5 <= after.share <= 1
            shares.append(after.share)
        assert len(set(shares)) == len(shares)

    def test_seed_and_step_decide_alone(self, slices: SliceFolder) -> None:
        uninterrupted = list(self.loader(slices, 0.4).between(0, 9))
        for workers, start in ((0, 4), (2, 0)):
            rest = self.loader(slices, 0.4, workers).between(start, 9)
            for one, other in zip(uninterrupted[start:], rest, strict=True):
                assert one.share == other.share and torch.equal(one.image, other.image)
                assert torch.equal(one.other_mask, other.other_mask)

    def test_slices_without_masks_mix_among_themselves(self) -> None:
        masks = torch.tensor([0, UNLABELLED, 1, UNLABELLED, 2], dtype=torch.uint8)
        batch = Batch(torch.arange(5.0)[:, None, None, None], masks[:, None, None], list("abcde"))
        seen = set()
        for i in range(40):
            mixed = mixup(batch, 1.0, generator(0, i))
            assert torch.equal(has_mask(mixed.other_mask), has_mask(batch.mask))
            others = (mixed.image - mixed.share * batch.image).flatten() / (1 - mixed.share)
            seen |= set(enumerate(others.round().int().tolist()))
        assert seen == {(i, j) for group in ((0, 2, 4), (1, 3)) for i in group for j in group}


def test_window_image() -> None:
    image = np.array([-32768, -200, 50, 300, 32767], np.int16)
    windowed = window_image(image, -200, 300)
    assert windowed.dtype == np.float32
    np.testing.assert_allclose(windowed, [-1, -1, 0, 1, 1], atol=1e-6)


def test_percentiles_are_those_of_numpy() -> None:
    image = np.random.default_rng(0).normal(0, 3000, (5, 17, 13)).astype(np.int16)
    percents = (0, 0.5, 37, 99.5, 100)
    assert percentiles(level_counts(image), *percents) == pytest.approx(np.percentile(image, percents))


def test_a_program_that_fails_with_loading_processes_left_ends(tmp_path: Path) -> None:
    program = (
        "from tests.small import write_bare_archive\n"
        "from datasets.frame import Frame\n"
        "from datasets.loader import SliceDataset, TrainingLoader\n"
        "from datasets.slices.slice_folder import SliceFolder\n"
        "from pathlib import Path\n"
        f"slices = SliceFolder.open(write_bare_archive(Path({str(tmp_path / 'slices')!r})), 'kits', 'tumor')\n"
        "loader = TrainingLoader(SliceDataset(slices, slices.train, Frame(64, 0)), batch_size=2, workers=1)\n"
        "batches = loader.between(0, 4)\n"
        "next(batches)\n"
        "1 / 0\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr
