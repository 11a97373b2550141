"""Splits: by case, seeded, and unchanged when cases are added."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from datasets.splits import Split, SplitOptions, extend_split, load_split, save_split, split_cases
from utils.errors import UserError


class TestSplits:
    names = tuple(f"{number:05d}" for number in range(20))

    def test_is_seeded_and_does_not_depend_on_the_order(self) -> None:
        split = split_cases(self.names, 0, 0.2, 0.1)
        assert split == split_cases(reversed(self.names), 0, 0.2, 0.1)
        assert split != split_cases(self.names, 1, 0.2, 0.1)
        assert (len(split.train), len(split.val), len(split.test)) == (14, 2, 4)
        assert sorted(split.train + split.val + split.test) == list(self.names)

    @pytest.mark.parametrize(("count", "sizes"), [(1, (1, 0, 0)), (2, (2, 0, 0)), (3, (1, 1, 1)), (4, (2, 1, 1))])
    def test_few_cases(self, count: int, sizes: tuple[int, int, int]) -> None:
        split = split_cases(self.names[:count], 0, 0.1, 0.1)
        assert (len(split.train), len(split.val), len(split.test)) == sizes

    @pytest.mark.parametrize("step", [1, 2, 7])
    def test_cases_added_in_steps_meet_the_fractions(self, step: int) -> None:
        split, options = split_cases((), 0, 0.2, 0.1), SplitOptions(test_fraction=0.2, val_fraction=0.1)
        for count in (*range(0, 20, step), 20):
            split = extend_split(split, self.names[:count], options)
        assert (len(split.train), len(split.val), len(split.test)) == (14, 2, 4)

    def test_a_new_frame_goes_to_its_patient(self) -> None:
        first = split_cases([f"patient{number:03d}_frame01" for number in range(9)], 0, 0.3, 0.3)
        split = extend_split(first, [name.replace("_frame01", "_frame12") for name in first.names], SplitOptions())
        for part in ("train", "val", "test"):
            assert len(getattr(split, part)) == 2 * len(getattr(first, part))

    def test_training_always_has_a_case(self) -> None:
        assert split_cases(self.names[:3], 0, 0.5, 0.49).train

    def test_the_frames_of_a_patient_stay_together(self) -> None:
        names = [f"patient{number:03d}_frame{frame}" for number in range(9) for frame in ("01", "12")]
        split = split_cases(names, 0, 0.3, 0.3)
        patients = [{name.partition("_")[0] for name in part} for part in (split.train, split.val, split.test)]
        assert sum(len(part) for part in patients) == 9


class TestPatients:
    """Whose case it is where the name does not say so."""

    patients: ClassVar[dict[str, str]] = {f"{number:02d}": f"p{number // 2}" for number in range(20)}

    def test_stay_together_also_when_cases_are_added(self) -> None:
        names = list(self.patients)
        first = split_cases(names[::2], 0, 0.3, 0.2, self.patients)
        split = extend_split(first, names, SplitOptions(test_fraction=0.3, val_fraction=0.2), self.patients)
        assert all(len(getattr(split, part)) == 2 * len(getattr(first, part)) for part in ("train", "val", "test"))
        parts = split.parts_of_patients()
        assert {split.part_of(name) for name in names if parts[self.patients[name]] == "test"} == {"test"}

    def test_given_parts_are_kept_and_carry_their_patients(self) -> None:
        options = SplitOptions(test_fraction=0.2, val_fraction=0.2)
        split = extend_split(Split([], [], []), self.patients, options, self.patients, {"00": "test", "05": "val"})
        assert {"00", "01"} <= set(split.test) and {"04", "05"} <= set(split.val)
        assert (len(split.test), len(split.val)) == (4, 4)
        with pytest.raises(UserError, match="case 00 is to be in train, and was in test before; add --resplit"):
            extend_split(split, self.patients, options, self.patients, {"00": "train"})
        with pytest.raises(UserError, match=r"patient p0 is in train \(case 00\) and in val \(case 01\)"):
            extend_split(Split([], [], []), self.patients, options, self.patients, {"00": "train", "01": "val"})

    def test_a_file_that_divides_a_patient(self, tmp_path: Path) -> None:
        path = tmp_path / "splits.json"
        save_split(path, Split(["a"], ["b"], [], [], {"a": "p", "b": "p"}), SplitOptions())
        with pytest.raises(UserError, match=r"splits\.json: patient p is in train \(case a\) and in val \(case b\)"):
            load_split(path)
        save_split(path, Split(["a", "b"], [], [], [], {"a": "p", "b": "p"}), SplitOptions())
        assert load_split(path).patients == {"a": "p", "b": "p"}


class TestLabelled:
    """Which training cases keep their masks."""

    names = tuple(f"{number:05d}" for number in range(20))

    def draw(self, labelled: int, before: Split | None = None, seed: int = 0, count: int = 20) -> Split:
        options = SplitOptions("train", seed, 0.2, 0.1, labelled)
        return extend_split(before or Split([], [], []), self.names[:count], options)

    def test_only_training_cases_lose_their_masks(self) -> None:
        whole, few = self.draw(0), self.draw(5)
        assert (few.val, few.test) == (whole.val, whole.test) and whole.unlabelled == []
        assert len(few.train) == 5 and sorted(few.train + few.unlabelled) == whole.train
        assert self.draw(14) == whole

    def test_a_larger_number_contains_a_smaller_one_however_it_was_reached(self) -> None:
        draws = {labelled: set(self.draw(labelled).train) for labelled in range(1, 15)}
        assert all(draws[smaller] < draws[smaller + 1] for smaller in range(1, 14))
        assert self.draw(9, self.draw(3)) == self.draw(9) and self.draw(3, self.draw(9)) == self.draw(3)
        assert self.draw(0, self.draw(3)) == self.draw(0)
        assert {tuple(self.draw(3, seed=seed).train) for seed in range(5)} != {tuple(self.draw(3).train)}

    def test_new_cases_take_no_mask_from_the_others(self) -> None:
        before = self.draw(4, count=12)
        after = self.draw(4, before)
        assert after.train == before.train and set(before.unlabelled) < set(after.unlabelled)
        assert set(self.draw(6, after).train) > set(before.train)

    def test_more_than_there_are(self) -> None:
        with pytest.raises(UserError, match="--labelled 15: there are 14 training cases; give a smaller number, or 0"):
            self.draw(15)
        with pytest.raises(UserError, match="--labelled 1: there are 0 training cases"):
            extend_split(Split([], [], []), self.names, SplitOptions("test", labelled=1))
        with pytest.raises(UserError, match="--labelled -1: must not be negative"):
            SplitOptions(labelled=-1)
