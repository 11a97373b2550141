"""Slices without masks: which may be used, and how they join batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets.augment import AUGMENTS
from datasets.frame import Frame
from datasets.loader import SliceDataset, StepBatches, TrainingLoader
from datasets.slices.slice_folder import SliceFolder
from datasets.slices.unlabelled import UnlabelledSlices, held_out_cases, unlabelled_slices
from tests.data import ct_and_label, cut_all, cut_slices, kits_case, loose_ct
from tests.small import write_bare_archive
from utils.batch import UNLABELLED, Batch, has_mask
from utils.errors import UserError

FRAME = Frame(32, 24)


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five KiTS cases in train/ (one validates) and test/, every slice on disk, and two without in unlabelled/."""
    root = tmp_path_factory.mktemp("data")
    for number in range(5):
        kits_case(root / "raw", number)
    for number in (210, 211):
        (kits_case(root / "raw", number) / "segmentation.nii.gz").unlink()
    cut_all(root / "raw", root / "slices", slices="all", negatives=0, test_fraction=0.2, val_fraction=0.2)
    return root / "slices"


@pytest.fixture(scope="module")
def training(slices: Path) -> SliceFolder:
    return SliceFolder.open(slices, "kits", "tumor")


def usable(training: SliceFolder, *folders: Path) -> UnlabelledSlices:
    return unlabelled_slices(folders, training, training.train, held_out_cases(training))


class TestSources:
    def test_training_slices_that_are_not_on_the_list(self, training: SliceFolder) -> None:
        found = usable(training, training.folder)
        (val,) = training.val_cases
        everything = {name for case, names in training.cases.items() if case != val for name in names}
        assert set(found.names) == everything - set(training.train)
        assert len(found) == len(set(found.names)) == 3 * (8 - 2)
        assert unlabelled_slices([training.folder], training, training.train, ()).names == found.names
        assert str(found) == f"18 of 3 cases in {training.folder}"

    def test_a_folder_stands_for_those_below_it_and_counts_once(self, training: SliceFolder, slices: Path) -> None:
        listed = usable(training, training.folder).names
        cut = usable(training, slices / "unlabelled").names
        assert len(cut) == 2 * 4
        assert usable(training, slices).names == usable(training, slices, slices / "train").names == listed + cut

    def test_the_published_archive(self, tmp_path: Path) -> None:
        """Without cases.json, the held-out cases are those in test/ next to it and the validation cases."""
        train = write_bare_archive(tmp_path / "train", cases=4)
        np.save(train / "kits_tumor_slices.npy", np.array(["00000_1.npz", "00001_2.npz"]))
        write_bare_archive(tmp_path / "test", cases=1)
        slices = SliceFolder.open(tmp_path, "kits", "tumor")
        held_out = held_out_cases(slices)
        assert held_out == {"00000"}
        found = unlabelled_slices([train], slices, slices.train, held_out | {"00003"})
        assert found.names == [*(f"00001_{i}.npz" for i in (0, 1, 3)), *(f"00002_{i}.npz" for i in range(4))]
        ct, window, case = found.read(0, None)
        assert (ct.dtype, window, case) == (np.int16, (-200, 300), "00001")

    def test_held_out_cases(self, training: SliceFolder, slices: Path, tmp_path: Path) -> None:
        (test,) = SliceFolder.open(slices, "kits", "tumor", "test").cases
        assert held_out_cases(training) == {*training.val_cases, test}
        elsewhere = write_bare_archive(tmp_path / "test", cases=2)
        assert held_out_cases(training, elsewhere) == {*training.val_cases, test, "00000", "00001"}
        assert held_out_cases(training, training.folder) == held_out_cases(training)

    @pytest.mark.parametrize("name", ["case_{}", "case_{}_0000", "{}"])
    def test_held_out_cases_do_not_come_in_by_another_folder(
        self, training: SliceFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
    ) -> None:
        (val,) = training.val_cases
        (test,) = held_out_cases(training) - {val}
        cut_all(loose_ct(tmp_path / "raw", name.format(val), name.format(test), "new"), tmp_path / "out")
        capsys.readouterr()
        found = usable(training, tmp_path / "out" / "unlabelled")
        assert len(found) == 4 and all(each.startswith("new_") for each in found.names)
        (notice,) = capsys.readouterr().err.splitlines()
        assert notice.startswith("note: ") and all(
            name.format(case).removesuffix("_0000") in notice for case in (val, test)
        )

    def test_names_of_another_data_set_are_other_patients(self, training: SliceFolder, tmp_path: Path) -> None:
        cut_all(loose_ct(tmp_path / "raw", *held_out_cases(training)), tmp_path / "out", "lits")
        assert len(usable(training, tmp_path / "out")) == 2 * 4

    def test_refused(self, training: SliceFolder, slices: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"holds no slices; cut them with: .* --unlabelled"):
            usable(training, tmp_path)
        with pytest.raises(UserError, match=r"test: all its slices are trained on with masks or are for"):
            usable(training, slices / "test")
        heart = tmp_path / "heart"
        loose_ct(heart, "mr")
        cut_slices(heart, tmp_path / "out", "heart", "organ", unlabelled=1.0)
        with pytest.raises(UserError, match=r"unlabelled: holds MR, but .* CT; give slices of the same kind"):
            usable(training, tmp_path / "out")


@pytest.fixture(scope="module")
def without(training: SliceFolder, slices: Path) -> UnlabelledSlices:
    return usable(training, slices / "unlabelled")


def epochs(training: SliceFolder, *numbers: int, batch_size: int = 5, workers: int = 0, **options: Any) -> list[Batch]:
    """The batches of these epochs, augmented; options: `unlabelled`, `unlabelled_per_batch`, and `start`, a step."""
    dataset = SliceDataset(training, training.train, FRAME, "paper", 1, unlabelled=options.get("unlabelled"))
    loader = TrainingLoader(dataset, batch_size, workers, options.get("unlabelled_per_batch"))
    each, start = loader.steps_per_epoch, options.get("start", 0)
    return [batch for number in numbers for batch in loader.between(number * each + start, (number + 1) * each)]


def assert_equal(one: list[Batch], other: list[Batch]) -> None:
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.image, b.image) and torch.equal(a.mask, b.mask) and a.cases == b.cases


class TestBatches:
    """Six labelled slices and eight without masks."""

    def test_a_fixed_number_of_each_batch_has_no_mask(self, training: SliceFolder, without: UnlabelledSlices) -> None:
        drawn = epochs(training, 0, batch_size=4, unlabelled=without)
        assert [has_mask(batch.mask).tolist() for batch in drawn] == [[True] * n + [False] * 4 for n in (4, 2)]
        for batch in drawn:
            labelled = has_mask(batch.mask)
            assert (batch.mask[labelled] <= 1).all() and (batch.mask[~labelled] == UNLABELLED).all()
            assert all(
                case in ("00210", "00211") for case, known in zip(batch.cases, labelled, strict=True) if not known
            )
        for each in (1, 7):
            joined = epochs(training, 0, batch_size=3, unlabelled=without, unlabelled_per_batch=each)
            assert [len(batch.cases) for batch in joined] == [3 + each] * 2

    def test_the_labelled_part_is_what_it_would_be_alone(
        self, training: SliceFolder, without: UnlabelledSlices
    ) -> None:
        joined = epochs(training, 0, 1, batch_size=3, unlabelled=without, unlabelled_per_batch=2)
        alone = epochs(training, 0, 1, batch_size=3)
        assert_equal([Batch(batch.image[:3], batch.mask[:3], batch.cases[:3]) for batch in joined], alone)

    def test_workers_change_nothing(self, training: SliceFolder, without: UnlabelledSlices) -> None:
        alone, parallel = (epochs(training, 3, unlabelled=without, workers=workers) for workers in (0, 2))
        assert_equal(alone, parallel)

    def test_continues_within_an_epoch(self, training: SliceFolder, without: UnlabelledSlices) -> None:
        both = epochs(training, 2, 3, batch_size=3, unlabelled=without)
        assert_equal(epochs(training, 3, batch_size=3, unlabelled=without, start=1), both[3:])

    def test_a_sample_is_the_slice_in_the_given_window(self, training: SliceFolder, without: UnlabelledSlices) -> None:
        dataset = SliceDataset(training, training.train, Frame(0, 0), unlabelled=without, window=(-1000.0, 1000.0))
        for i, name in enumerate(without.names):
            image, mask, case = dataset[0, len(dataset) + i]
            number, index = name.removesuffix(".npz").split("_")
            ct = ct_and_label(seed=int(number))[0][7 - int(index)]
            np.testing.assert_allclose(image[0], ct / 1000, atol=1e-6)
            assert (mask.shape, mask.dtype, case) == ((20, 24), torch.uint8, number) and (mask == UNLABELLED).all()

    @pytest.mark.parametrize("augment", AUGMENTS)
    def test_augmentation_makes_no_mask(self, training: SliceFolder, without: UnlabelledSlices, augment: str) -> None:
        dataset = SliceDataset(training, training.train, FRAME, augment, unlabelled=without)
        for i in range(3 * len(without)):
            image, mask, _ = dataset[0, len(dataset) + i]
            assert (image.shape, mask.shape) == ((1, 24, 24), (24, 24)) and (mask == UNLABELLED).all()


class TestOrder:
    def unlabelled_items(self, batches: StepBatches, epochs: int) -> list[int]:
        batches.steps = range(epochs * batches.per_epoch)
        return [i for batch in batches for _, i in batch if i >= batches.n]

    def test_each_comes_once_before_any_comes_again(self) -> None:
        """7 slices, 3 batches with 2 in each epoch: the rounds do not end where the epochs do."""
        items = self.unlabelled_items(StepBatches(9, 3, 0, unlabelled=7, unlabelled_per_batch=2), 7)
        assert len(items) == 7 * 3 * 2 == len(set(items))
        rounds = [[(i - 9) % 7 for i in items[start : start + 7]] for start in range(0, 42, 7)]
        assert all(sorted(order) == list(range(7)) for order in rounds)
        assert len({tuple(order) for order in rounds}) > 1
        assert items != self.unlabelled_items(StepBatches(9, 3, 1, unlabelled=7, unlabelled_per_batch=2), 7)

    def test_a_slice_that_comes_again_is_augmented_differently(
        self, training: SliceFolder, without: UnlabelledSlices
    ) -> None:
        dataset = SliceDataset(training, training.train, FRAME, "paper", unlabelled=without)
        again = [dataset[0, len(dataset) + turn * len(without)][0] for turn in range(8)]
        assert any(not torch.equal(again[0], image) for image in again)

    def test_without_any_nothing_changes(self) -> None:
        assert list(StepBatches(10, 4, 3)) == list(StepBatches(10, 4, 3, unlabelled=0, unlabelled_per_batch=2))
