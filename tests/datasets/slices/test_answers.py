"""Answers on their way to a batch: framed, augmented and mixed with the slices that they are to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.augment import AUGMENTS, get_augment
from datasets.cache import SliceCache, cache_bytes, slots
from datasets.frame import Frame
from datasets.loader import SliceDataset, TrainingLoader
from datasets.slices.answers import FLOOR, StoredAnswers
from datasets.slices.slice_folder import SliceFolder
from datasets.slices.unlabelled import unlabelled_slices
from tests.answers import answer_masks, cut_answered
from tests.data import kits_case
from utils.batch import UNLABELLED, Batch, has_mask, mixup
from utils.seeding import generator


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cases, two of them without masks, all with answers."""
    root = tmp_path_factory.mktemp("data")
    for number in range(4):
        kits_case(root / "raw", number)
    answer_masks(root / "raw", root / "teacher")
    cut_answered(root / "raw", root / "out", root / "teacher", val_fraction=0, labelled=2, unlabelled=1.0)
    return root / "out"


@pytest.fixture(scope="module")
def slices(out: Path) -> SliceFolder:
    return SliceFolder.open(out, "kits", "all")


@pytest.fixture(scope="module")
def answers(out: Path) -> StoredAnswers:
    return StoredAnswers.open([out])


def test_without_frame_and_augmentation_they_are_as_stored(slices: SliceFolder, answers: StoredAnswers) -> None:
    dataset = SliceDataset(slices, slices.train, Frame(0, 0), answers=answers)
    for i, name in enumerate(slices.train):
        image, mask, _, fields = dataset[0, i]
        stored = torch.from_numpy(answers.read(slices, name)).float()
        torch.testing.assert_close(fields["answers"], stored, atol=2e-6, rtol=0)
        assert fields["answers"].shape[1:] == image.shape[1:] == mask.shape
        assert torch.equal(fields["answers"].argmax(dim=0).to(torch.uint8), mask)


@pytest.mark.parametrize("augment", AUGMENTS)
def test_they_change_nothing_of_the_image_and_move_with_it(
    slices: SliceFolder, answers: StoredAnswers, augment: str
) -> None:
    frame = Frame(64, 60)
    plain, answered = (SliceDataset(slices, slices.train, frame, augment, answers=each) for each in (None, answers))
    wrong = total = 0
    for epoch in range(3):
        for i in range(len(plain)):
            (image, mask, case), (*same, fields) = plain[epoch, i], answered[epoch, i]
            assert torch.equal(image, same[0]) and torch.equal(mask, same[1]) and case == same[2]
            found = fields["answers"]
            assert found.shape == (3, 60, 60) and found.dtype == torch.float32 and found.isfinite().all()
            assert float(found.min()) >= FLOOR
            torch.testing.assert_close(found.exp().sum(dim=0), torch.ones(60, 60), atol=5e-3, rtol=0)
            wrong += int((found.argmax(dim=0) != mask).sum())
            total += int((mask > 0).sum())
    # The mask is moved by the nearest pixel, and the answers between pixels: they differ along edges.
    assert wrong < 0.12 * total


def test_padding_is_background(slices: SliceFolder, answers: StoredAnswers) -> None:
    """Slices of 20 x 24 in a crop of 40."""
    *_, fields = SliceDataset(slices, slices.train[:1], Frame(0, 40), answers=answers)[0, 0]
    assert (fields["answers"][:, 0, 0] == torch.tensor([0, FLOOR, FLOOR])).all()
    assert fields["answers"].shape == (3, 40, 40)


def test_intensities_are_augmented_and_answers_not() -> None:
    """Gamma and noise leave what is beside the image as it is; flips and turns move it by whole pixels."""
    image = torch.rand(1, 32, 32) * 2 - 1
    mask = torch.zeros(32, 32, dtype=torch.uint8)
    constant = torch.full((2, 32, 32), 0.3)
    for augment in AUGMENTS:
        for i in range(20):
            moved, _ = get_augment(augment)(torch.cat([image, constant]), mask, generator(0, i))
            torch.testing.assert_close(moved[1:], constant, atol=1e-6, rtol=0)


def test_unlabelled_slices_have_theirs(out: Path, slices: SliceFolder, answers: StoredAnswers) -> None:
    unlabelled = unlabelled_slices([out / "unlabelled"], slices, slices.train, set())
    answers.check(unlabelled.files)
    dataset = SliceDataset(slices, slices.train, Frame(0, 0), unlabelled=unlabelled, answers=answers)
    _, mask, case, fields = dataset[0, len(dataset) + 3]
    folder, name = unlabelled.files[3]
    assert (mask == UNLABELLED).all() and name.startswith(case)
    stored = torch.from_numpy(answers.read(folder, name)).float()
    torch.testing.assert_close(fields["answers"], stored, atol=2e-6, rtol=0)
    batch = next(iter(TrainingLoader(dataset, 2, workers=0)))
    assert batch.answers is not None and batch.answers.shape == (4, 3, 20, 24)
    assert has_mask(batch.mask).tolist() == [True, True, False, False]


@pytest.mark.parametrize("augment", AUGMENTS)
def test_kept_in_memory_they_are_those_from_disk(
    out: Path, slices: SliceFolder, answers: StoredAnswers, augment: str
) -> None:
    unlabelled = unlabelled_slices([out / "unlabelled"], slices, slices.train, set())
    frame = Frame(32, 24)
    dataset = SliceDataset(slices, slices.train, frame, augment, unlabelled=unlabelled, answers=answers)
    assert cache_bytes(dataset) == slots(dataset) * 24 * 24 * (3 + 3 * 4)
    kept = TrainingLoader(dataset, 4, workers=0, cache=SliceCache(dataset, torch.device("cpu")))
    read = TrainingLoader(dataset, 4, workers=0)
    steps = 2 * read.steps_per_epoch
    for one, other in zip(kept.between(0, steps), read.between(0, steps), strict=True):
        assert one.answers is not None and other.answers is not None
        assert torch.equal(one.image, other.image) and torch.equal(one.answers, other.answers)


def test_mixup_mixes_probabilities() -> None:
    torch.manual_seed(0)
    probabilities = torch.rand(4, 3, 5, 6).softmax(dim=1)
    image = torch.arange(4.0)[:, None, None, None].expand(4, 1, 5, 6)
    batch = Batch(image, torch.zeros(4, 5, 6, dtype=torch.uint8), list("abcd"), answers=probabilities.log())
    mixed = mixup(batch, 1.0, np.random.default_rng(3))
    assert mixed.answers is not None and mixed.share < 1
    others = ((mixed.image[:, 0, 0, 0] - mixed.share * torch.arange(4.0)) / (1 - mixed.share)).round().long()
    expected = mixed.share * probabilities + (1 - mixed.share) * probabilities[others]
    torch.testing.assert_close(mixed.answers.exp(), expected)
    moved = mixed.to(torch.device("cpu"))
    assert moved.answers is not None and torch.equal(moved.answers, mixed.answers)
