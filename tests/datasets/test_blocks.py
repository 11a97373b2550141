"""Blocks of slices: the slice in the middle is the one that comes without a block, and its neighbours move with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from datasets.augment import AUGMENTS
from datasets.blocks import BlockDataset
from datasets.frame import Frame
from datasets.labels import NO_MASK
from datasets.loader import SliceDataset, TrainingLoader
from datasets.slices.manifest import Manifest
from datasets.slices.slice_folder import SliceFolder, case_of
from datasets.slices.unlabelled import UnlabelledSlices
from tests.data import cut_all, cut_slices, kits_case
from utils.batch import UNLABELLED, middle
from utils.errors import UserError

FRAME = Frame(32, 24)
BLOCK = 5


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> SliceFolder:
    """Two cases of 8 slices, of which the first is the uppermost, and a third of which slices are missing."""
    root = tmp_path_factory.mktemp("data")
    for number in range(3):
        kits_case(root / "raw", number)
    cut_slices(root / "raw", root / "out", task="all", val_fraction=0, slices="all")
    for index in (0, 5):
        (root / "out" / f"00002_{index}.npz").unlink()
    return SliceFolder.open(root / "out", "kits", "all")


NAMES = ["00000_0.npz", "00000_3.npz", "00001_7.npz"]


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("with_masks", [False, True])
def test_the_middle_slice_is_the_one_without_a_block(slices: SliceFolder, augment: str, with_masks: bool) -> None:
    alone = SliceDataset(slices, NAMES, FRAME, augment, seed=3)
    around = BlockDataset(slices, NAMES, FRAME, augment, seed=3, block=BLOCK, with_masks=with_masks)
    for item in ((epoch, i) for epoch in range(3) for i in range(len(NAMES))):
        (image, mask, case), (block, masks, same_case) = alone[item], around[item]
        assert block.shape == (BLOCK, 24, 24) and case == same_case
        assert torch.equal(block[middle(BLOCK)], image[0])
        assert torch.equal(masks[middle(BLOCK)] if with_masks else masks, mask)


def test_neighbours_are_moved_alike(slices: SliceFolder) -> None:
    """A slice in the block of another is what it would be if it were augmented with that one's random numbers."""
    around = BlockDataset(slices, ["00000_3.npz"], FRAME, "mild", seed=3, block=BLOCK, with_masks=True)
    for index in range(1, 6):
        alone = SliceDataset(slices, [f"00000_{index}.npz"], FRAME, "mild", seed=3)
        for epoch in range(3):
            (image, mask, _), (block, masks, _) = alone[epoch, 0], around[epoch, 0]
            assert torch.equal(block[5 - index], image[0]) and torch.equal(masks[5 - index], mask)


@pytest.mark.parametrize(("name", "expected"), [("00000_0.npz", [2, 1, 0, 0, 0]), ("00001_7.npz", [7, 7, 7, 6, 5])])
def test_beyond_the_volume_comes_its_last_slice_again(slices: SliceFolder, name: str, expected: list[int]) -> None:
    case, _ = case_of(name)
    block, masks, _ = BlockDataset(slices, [name], FRAME, block=BLOCK, with_masks=True)[0, 0]
    for place, index in enumerate(expected):
        image, mask, _ = SliceDataset(slices, [f"{case}_{index}.npz"], FRAME)[0, 0]
        assert torch.equal(block[place], image[0]) and torch.equal(masks[place], mask)


def test_a_case_that_lacks_slices_is_refused_with_the_command(slices: SliceFolder) -> None:
    with pytest.raises(UserError, match=r"lacks slices of case 00002.* --slices all"):
        BlockDataset(slices, [*NAMES, "00002_3.npz"], FRAME, block=BLOCK, with_masks=True)


def test_so_is_one_without_masks(slices: SliceFolder, tmp_path: Path) -> None:
    for number in range(3):
        folder = kits_case(tmp_path / "raw", number)
    (folder / "segmentation.nii.gz").unlink()
    cut_all(tmp_path / "raw", tmp_path / "out", task="all")
    place = tmp_path / "out" / "unlabelled"

    def blocks() -> BlockDataset:
        bare = SliceFolder(place, "kits", NO_MASK, Manifest.load(place))
        unlabelled = UnlabelledSlices(((bare, bare.cases["00002"][0]),))
        return BlockDataset(slices, NAMES, FRAME, unlabelled=unlabelled, block=BLOCK, with_masks=False)

    with pytest.raises(UserError, match=rf"lacks slices of case 00002.*--outpath {tmp_path / 'out'} --unlabelled 1$"):
        blocks()
    cut_all(tmp_path / "raw", tmp_path / "out", task="all", unlabelled=1.0)
    assert blocks()[0, len(NAMES)][2] == "00002"


def test_unlabelled_slices_have_blocks_too(slices: SliceFolder) -> None:
    unlabelled = UnlabelledSlices(((slices, "00001_4.npz"),))
    around = BlockDataset(slices, NAMES, FRAME, unlabelled=unlabelled, block=BLOCK, with_masks=False)
    block, mask, case = around[0, len(NAMES)]
    expected, _, _ = BlockDataset(slices, ["00001_4.npz"], FRAME, block=BLOCK, with_masks=False)[0, 0]
    assert torch.equal(block, expected) and case == "00001" and (mask == UNLABELLED).all()


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_batches_for_a_teacher_of_blocks(slices: SliceFolder, alpha: float) -> None:
    """The image stays the middle slice of its block, also where both are mixed with another."""
    around = BlockDataset(slices, NAMES, FRAME, "mild", block=BLOCK, with_masks=False)
    for batch in TrainingLoader(around, 3, 0, mixup_alpha=alpha):
        assert batch.image.shape == (3, 1, 24, 24) and batch.mask.shape == (3, 24, 24) and batch.slices == 3
        assert batch.block.shape == (3, BLOCK, 24, 24)
        assert torch.equal(batch.block[:, middle(BLOCK)], batch.image[:, 0])
        moved = batch.to(torch.device("meta"))
        assert moved.block.device.type == "meta" and moved.cases == batch.cases


def test_batches_of_blocks_to_learn_from(slices: SliceFolder) -> None:
    around = BlockDataset(slices, NAMES, FRAME, "mild", block=BLOCK, with_masks=True)
    (batch,) = TrainingLoader(around, 3, 0, mixup_alpha=1.0)
    assert batch.image.shape == (3, 1, BLOCK, 24, 24) and batch.mask.shape == (3, BLOCK, 24, 24)
    assert batch.block is None and batch.slices == 3 * BLOCK and batch.other_mask.shape == batch.mask.shape


def test_other_slices_unaugmented(slices: SliceFolder) -> None:
    around = BlockDataset(slices, NAMES, FRAME, "strong", block=BLOCK, with_masks=False)
    block, _, case = around.unaugmented(["00001_2.npz"])[5, 0]
    expected, _, _ = BlockDataset(slices, ["00001_2.npz"], FRAME, block=BLOCK, with_masks=False)[0, 0]
    assert torch.equal(block, expected) and case == "00001" and len(around) == len(NAMES)
