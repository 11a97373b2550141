"""SliceMaker --labelled: the masks of some training cases, and the others cut without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets.slices.slice_folder import SliceFolder
from datasets.slices.unlabelled import held_out_cases, unlabelled_slices
from datasets.slicing import slicemaker
from datasets.splits import Split, load_split
from tests.data import cut_slices, kits_case
from utils.errors import UserError
from utils.files import read_json, write_json

SHARES = {"test_fraction": 0.2, "val_fraction": 0.2}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten cases, of which six train, and two without segmentation."""
    root = tmp_path_factory.mktemp("raw")
    for number in range(10):
        kits_case(root, number)
    for number in (210, 211):
        (kits_case(root, number) / "segmentation.nii.gz").unlink()
    return root


def cases_in(folder: Path) -> set[str]:
    return {path.stem.rpartition("_")[0] for path in folder.glob("*.npz")}


def files(folder: Path) -> dict[str, int]:
    """Every slice, and when it was written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.npz")}


def assert_cut(out: Path, split: Split, *without: str) -> None:
    """The folders hold what the split says, and the cases `without` segmentation."""
    assert cases_in(out / "train") == {*split.train, *split.val} and cases_in(out / "test") == set(split.test)
    assert cases_in(out / "unlabelled") == {*split.unlabelled, *without}
    for path in (out / "unlabelled").glob("*.npz"):
        with np.load(path) as content:
            assert content.files == ["ct"]


def test_one_command_makes_both_folders(raw: Path, tmp_path: Path) -> None:
    whole = cut_slices(raw, tmp_path / "whole", **SHARES)
    out = tmp_path / "out"
    summary = cut_slices(raw, out, labelled=2, unlabelled=1.0, **SHARES)
    split = summary.split
    assert (split.val, split.test) == (whole.split.val, whole.split.test)
    assert len(split.train) == 2 and sorted(split.train + split.unlabelled) == whole.split.train
    assert_cut(out, split, "00210", "00211")
    assert len(list((out / "unlabelled").glob("*.npz"))) == 6 * 8
    assert "masks: of 2 of 6 training cases" in str(summary)
    assert "cases without segmentation: 6 (4 of them by --labelled), 6 cut now" in str(summary)

    training = SliceFolder.open(out, "kits", "tumor")
    held_out = held_out_cases(training)
    assert held_out == {*split.val, *split.test}
    found = unlabelled_slices([out / "unlabelled"], training, training.train, held_out)
    assert len(found) == 6 * 8 and not {name.rpartition("_")[0] for name in found.names} & held_out
    assert {name.rpartition("_")[0] for name in training.train} == set(split.train)


def test_a_second_run_does_nothing_with_or_without_the_option(raw: Path, tmp_path: Path) -> None:
    cut_slices(raw, tmp_path, labelled=2, unlabelled=0.5, **SHARES)
    before = files(tmp_path)
    for options in ({"labelled": 2}, {}, {"unlabelled": 0.5}):
        again = cut_slices(raw, tmp_path, **options)
        assert again.unlabelled is not None and again.skipped == []
        assert (again.cut, again.new, again.unlabelled.cut, again.unlabelled.new) == (0, 0, 0, 0)
        assert files(tmp_path) == before and load_split(tmp_path / "splits.json") == again.split


def test_another_number_moves_cases(raw: Path, tmp_path: Path) -> None:
    few = cut_slices(raw, tmp_path, labelled=2, **SHARES)
    assert_cut(tmp_path, few.split)
    assert few.skipped == ["00210", "00211"] and few.unlabelled is not None and few.unlabelled.slices == 4 * 2
    kept = files(tmp_path / "unlabelled")
    more = cut_slices(raw, tmp_path, labelled=4)
    assert set(few.split.train) < set(more.split.train) and more.cut == 2
    assert_cut(tmp_path, more.split)
    assert files(tmp_path / "unlabelled").items() < kept.items()
    cut_slices(raw, tmp_path, labelled=2)
    assert load_split(tmp_path / "splits.json") == few.split
    assert_cut(tmp_path, few.split)
    everything = cut_slices(raw, tmp_path, labelled=0)
    assert everything.split.unlabelled == [] and not (tmp_path / "unlabelled" / "cases.json").exists()
    assert_cut(tmp_path, everything.split)


def test_resplit_keeps_the_number(raw: Path, tmp_path: Path) -> None:
    cut_slices(raw, tmp_path, labelled=3, **SHARES)
    drawn = cut_slices(raw, tmp_path, resplit=True, seed=4)
    assert len(drawn.split.train) == 3 and len(drawn.split.unlabelled) == 3
    assert_cut(tmp_path, drawn.split)
    assert read_json(tmp_path / "splits.json")["labelled"] == 3


def test_a_split_of_the_user_s_own(raw: Path, tmp_path: Path) -> None:
    names = [f"{number:05d}" for number in range(10)]
    own = Split(names[:2], names[2:4], names[4:6], names[6:])
    lists = {"train": own.train, "val": own.val, "test": own.test, "unlabelled": own.unlabelled}
    write_json(tmp_path / "splits.json", lists)
    assert cut_slices(raw, tmp_path).split == own
    assert_cut(tmp_path, own)


def test_more_than_there_are_writes_nothing(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--labelled 7: there are 6 training cases"):
        cut_slices(raw, tmp_path / "out", labelled=7, **SHARES)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_change_is_continued(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the labelled cases, before those without masks."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    cut_slices(raw, tmp_path, labelled=4, **SHARES)
    with monkeypatch.context() as patch:
        patch.setattr(slicemaker, "_cut_unlabelled", stop)
        with pytest.raises(KeyboardInterrupt):
            cut_slices(raw, tmp_path, labelled=2)
    assert_cut(tmp_path, cut_slices(raw, tmp_path).split)
