"""SliceMaker: what it writes, what it leaves unchanged, and what it refuses."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.slicing import slicemaker
from datasets.slicing.options import RawOptions, SliceMakerOptions
from datasets.slicing.summary import SliceMakerSummary
from datasets.splits import load_split, split_cases
from tests.data import ct_and_label, cut_slices, kits_case, save
from tests.datasets.slicing.cutting import make, on_disk
from tests.paths import ROOT
from utils.errors import UserError
from utils.options import Parser
from utils.parallel import run_in_processes

ALL, TARGET = set(range(8)), {5, 6}


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.npz")}


def test_train_gets_targets_and_negatives_and_validation_everything(raw: Path) -> None:
    summary = make(raw, negatives=0.5, val_fraction=0.2)
    out = raw.parent / "out"
    slices = on_disk(out)
    (val,) = summary.split.val
    assert slices.keys() == {f"{number:05d}" for number in range(5)}
    for case, indices in slices.items():
        if case == val:
            assert indices == ALL
        elif case == "00004":
            assert len(indices) == 4
        else:
            assert indices >= TARGET and len(indices) == 5
    names = np.load(out / "kits_tumor_slices.npy", allow_pickle=False).tolist()
    assert names == sorted(f"{case}_{index}.npz" for case in slices if case != val for index in slices[case])
    assert summary.without_target == ["00004"]
    assert (summary.cut, summary.slices, summary.listed) == (5, summary.new, len(names))


def test_slice_files_hold_plain_arrays_of_the_source(raw: Path) -> None:
    make(raw)
    with np.load(raw.parent / "out" / "00002_5.npz", allow_pickle=False) as content:
        ct, mask = content["ct"], content["mask"]
    image, label = ct_and_label(seed=2)
    assert (ct.dtype, mask.dtype) == (np.int16, np.uint8)
    np.testing.assert_array_equal(ct, image[2])
    np.testing.assert_array_equal(mask, label[2])


def test_a_test_fraction_splits_the_folder(raw: Path) -> None:
    summary = make(raw, test_fraction=0.2, val_fraction=0.2, negatives=0)
    out = raw.parent / "out"
    train, test = on_disk(out / "train"), on_disk(out / "test")
    assert sorted(test) == summary.split.test and len(test) == 1
    assert not train.keys() & test.keys() and len(train) == 4
    assert all(indices == ALL for indices in test.values())
    assert load_split(out / "splits.json") == summary.split


def test_every_slice_is_written_on_request_but_the_list_stays(raw: Path) -> None:
    make(raw, slices="all", negatives=0, val_fraction=0)
    assert all(indices == ALL for indices in on_disk(raw.parent / "out").values())
    assert len(np.load(raw.parent / "out" / "kits_tumor_slices.npy")) == 4 * len(TARGET)


def test_mode_test_makes_every_case_a_test_case(raw: Path) -> None:
    summary = make(raw, mode="test")
    assert len(summary.split.test) == 5
    assert all(indices == ALL for indices in on_disk(raw.parent / "out").values())
    assert len(np.load(raw.parent / "out" / "kits_tumor_slices.npy")) == 4 * len(TARGET)


class TestSecondRun:
    def test_the_same_options_do_nothing(self, raw: Path) -> None:
        make(raw, test_fraction=0.2)
        before = times(raw.parent / "out")
        summary = make(raw, test_fraction=0.2)
        assert (summary.cut, summary.new) == (0, 0)
        assert times(raw.parent / "out") == before

    def test_more_negatives_only_add_and_fewer_only_remove(self, raw: Path) -> None:
        out = raw.parent / "out"
        make(raw, negatives=0.2, val_fraction=0)
        few = times(out)
        make(raw, negatives=0.6, val_fraction=0)
        many = times(out)
        assert few.items() < many.items()
        summary = make(raw, negatives=0.2, val_fraction=0)
        assert summary.cut == 0 and times(out) == few

    def test_another_test_fraction_moves_what_is_there(self, raw: Path) -> None:
        make(raw, slices="all")
        summary = make(raw, slices="all", test_fraction=0.4, resplit=True)
        out = raw.parent / "out"
        assert summary.cut == 0 and len(on_disk(out / "test")) == 2 and len(on_disk(out / "train")) == 3
        assert not on_disk(out) and not (out / "cases.json").exists() and not list(out.glob("*.npy"))

    def test_a_changed_source_is_cut_again(self, raw: Path) -> None:
        make(raw)
        image, _ = ct_and_label(seed=77)
        save(image, raw / "case_00001" / "imaging.nii.gz")
        os.utime(raw / "case_00001" / "imaging.nii.gz", (1, 1))
        assert make(raw).cut == 1
        with np.load(raw.parent / "out" / "00001_5.npz") as content:
            np.testing.assert_array_equal(content["ct"], image[2])

    def test_missing_slices_are_cut_again(self, raw: Path) -> None:
        make(raw)
        (raw.parent / "out" / "00001_5.npz").unlink()
        summary = make(raw)
        assert (summary.cut, summary.new) == (1, 1)

    def test_another_task_adds_to_the_folder(self, raw: Path) -> None:
        out = raw.parent / "out"
        make(raw, negatives=0, val_fraction=0)
        tumor = times(out)
        make(raw, "organ", negatives=0, val_fraction=0)
        assert tumor.items() < times(out).items()
        assert on_disk(out)["00001"] == {4, 5, 6, 7}
        assert len(np.load(out / "kits_tumor_slices.npy")) == 8
        assert len(np.load(out / "kits_organ_slices.npy")) == 20
        assert set(json.loads((out / "cases.json").read_text())["tasks"]) == {"tumor", "organ"}

    def test_continues_after_a_damaged_case_is_repaired(self, raw: Path) -> None:
        bad = raw / "case_00003" / "imaging.nii.gz"
        good = bad.read_bytes()
        bad.write_bytes(good[:200])
        out = raw.parent / "out"
        with pytest.raises(UserError, match=r"case_00003/imaging\.nii\.gz: cannot be read"):
            make(raw)
        assert "00003" not in on_disk(out) and len(on_disk(out)) == 4
        assert not list(out.glob("*.npy")) and not list(out.glob(".writing*"))
        bad.write_bytes(good)
        assert make(raw).cut == 1

    def test_a_missing_case_is_named(self, raw: Path) -> None:
        make(raw)
        shutil.rmtree(raw / "case_00002")
        with pytest.raises(UserError, match=r"lists case 00002.* bring it back or give another --outpath$"):
            make(raw)


class TestKeptSplit:
    """The fractions are given to the first run only."""

    @pytest.fixture
    def drawn(self, raw: Path) -> SliceMakerSummary:
        return make(raw, test_fraction=0.2, val_fraction=0.2, seed=5)

    def test_another_task_leaves_test_cases_where_they_are(self, raw: Path, drawn: SliceMakerSummary) -> None:
        again = make(raw, "organ")
        out = raw.parent / "out"
        assert again.split == drawn.split == load_split(out / "splits.json")
        assert sorted(on_disk(out / "test")) == drawn.split.test
        assert "later runs keep it" in str(drawn) and "split: kept from splits.json; 0 new cases\n" in str(again)

    def test_new_cases_leave_the_others_in_their_part(self, raw: Path, drawn: SliceMakerSummary) -> None:
        for number in range(5, 10):
            kits_case(raw, number)
        summary = make(raw)
        for part in ("train", "val", "test"):
            assert set(getattr(drawn.split, part)) < set(getattr(summary.split, part))
        assert (len(summary.split.train), len(summary.split.val), len(summary.split.test)) == (6, 2, 2)
        assert summary.cut == 5
        assert "5 new cases (train 3, val 1, test 1)" in str(summary)
        assert sorted(on_disk(raw.parent / "out" / "test")) == summary.split.test

    @pytest.mark.parametrize(
        "options", [{"test_fraction": 0.4}, {"val_fraction": 0.1}, {"seed": 0}, {"mode": "test"}], ids=str
    )
    def test_other_options_are_refused(self, raw: Path, drawn: SliceMakerSummary, options: dict[str, Any]) -> None:
        before = times(raw.parent / "out")
        ((name, value),) = options.items()
        with pytest.raises(UserError, match=f"was drawn with --{name} .*, not {value}; .* --resplit"):
            make(raw, **options)
        assert times(raw.parent / "out") == before

    def test_a_new_split_on_request(self, raw: Path, drawn: SliceMakerSummary) -> None:
        names = [f"{number:05d}" for number in range(5)]
        summary = make(raw, seed=0, resplit=True)
        assert summary.split == split_cases(names, 0, 0.2, 0.2) != drawn.split
        assert sorted(on_disk(raw.parent / "out" / "test")) == summary.split.test
        assert make(raw).split == summary.split

    def test_mode_test_is_kept_too(self, raw: Path) -> None:
        make(raw, mode="test")
        kits_case(raw, 5)
        assert len(make(raw).split.test) == 6

    def test_a_split_that_the_user_wrote(self, raw: Path) -> None:
        own = {"train": ["00000"], "val": ["00001"], "test": ["00002", "00003", "00004"]}
        splits = raw.parent / "out" / "splits.json"
        splits.parent.mkdir()
        splits.write_text(json.dumps(own))
        assert vars(make(raw).split) == {**own, "unlabelled": [], "patients": {}}
        splits.write_text(json.dumps(own | {"val": ["case_00001"]}))
        with pytest.raises(UserError, match=r"lists case case_00001, .* or --resplit"):
            make(raw)
        splits.write_text(json.dumps(own | {"val": ["00002"]}))
        with pytest.raises(UserError, match=r"splits\.json: lists case 00002 twice"):
            make(raw)

    def test_a_task_without_target_does_not_remove_it(self, tmp_path: Path) -> None:
        kits_case(tmp_path / "raw", 1, tumor=False)
        split = make(tmp_path / "raw", "organ").split
        with pytest.raises(UserError, match="no case has the target"):
            make(tmp_path / "raw", "tumor")
        assert load_split(tmp_path / "out" / "splits.json") == split


class TestRefused:
    def test_a_full_disk_leaves_no_slice_of_the_case(self, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        room, write = iter(range(2)), np.savez

        def savez(path: Path, **arrays: Any) -> None:
            write(path, **arrays)
            if next(room, None) is None:
                path.write_bytes(b"half a slice")
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(np, "savez", savez)
        with pytest.raises(UserError, match=r"00000_\d\.npz: cannot be written .*make room"):
            make(raw, slices="all")
        assert not list((raw.parent / "out").rglob("*00000*"))

    def test_no_target_in_any_case_leaves_nothing(self, tmp_path: Path) -> None:
        kits_case(tmp_path / "raw", 1, tumor=False)
        with pytest.raises(UserError, match="no case has the target of task tumor"):
            make(tmp_path / "raw")
        assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]

    def test_no_target_leaves_the_other_task_as_it_was(self, tmp_path: Path) -> None:
        kits_case(tmp_path / "raw", 1, tumor=False)
        make(tmp_path / "raw", "organ")
        before = times(tmp_path / "out")
        with pytest.raises(UserError, match="no case has the target"):
            make(tmp_path / "raw", "tumor")
        assert times(tmp_path / "out") == before
        assert make(tmp_path / "raw", "organ").cut == 0

    def test_no_segmentations_at_all(self, raw: Path) -> None:
        for path in raw.rglob("segmentation.nii.gz"):
            path.unlink()
        with pytest.raises(UserError, match="none of its 5 cases has a segmentation"):
            make(raw)

    def test_slices_of_another_kind_are_not_touched(self, raw: Path) -> None:
        out = raw.parent / "out"
        out.mkdir()
        np.savez(out / "00001_5.npz", ct=np.zeros(1), mask=np.zeros(1))
        before = times(out)
        with pytest.raises(UserError, match=r"holds slices but no cases\.json"):
            make(raw)
        assert times(out) == before

    @pytest.mark.parametrize("part", ["train", "test", "unlabelled", "."])
    def test_no_second_split_inside_the_first(self, raw: Path, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
        make(raw, test_fraction=0.2)
        out = raw.parent / "out"
        before = times(out)
        monkeypatch.chdir(out / "train")
        with pytest.raises(UserError, match=f"is a part of the split in .*splits.json; give --outpath {out}$"):
            cut_slices(raw, Path() if part == "." else out / part, task="organ")
        assert times(out) == before and not (out / "train" / "splits.json").exists()

    def test_an_outpath_that_is_a_file(self, raw: Path) -> None:
        (raw.parent / "out").write_text("")
        with pytest.raises(UserError, match="out: cannot be used as a folder"):
            make(raw)

    @pytest.mark.parametrize(
        "options", [{"negatives": 1.5}, {"test_fraction": 1.0}, {"val_fraction": -0.1}, {"seed": -1}, {"workers": 0}]
    )
    def test_nonsense_options(self, raw: Path, options: dict[str, float]) -> None:
        ((name, value),) = options.items()
        words = ["--inpath", str(raw), "--outpath", str(raw.parent / "out"), f"--{name}={value}"]
        with pytest.raises(UserError, match=f"--{name}"):
            make(raw, **vars(Parser(None).read(RawOptions, SliceMakerOptions, words=words)[1]))
        assert not (raw.parent / "out").exists()


def test_the_summary_lists_what_is_no_error(raw: Path) -> None:
    image, _ = ct_and_label(seed=1)
    save((image + 2100).astype(np.int16), raw / "case_00001" / "imaging.nii.gz")
    (raw / "case_00002" / "segmentation.nii.gz").unlink()
    text = str(make(raw))
    assert "skipped, no segmentation (--unlabelled cuts them): 00002" in text
    assert "without the target, negatives only: 00004" in text
    assert "note: case 00001: as if 1024 had been added to HU" in text


def test_several_processes_write_the_same(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slicemaker, "WORTH_A_PROCESS", 1)
    make(raw, seed=3)
    alone = {path.name: path.read_bytes() for path in (raw.parent / "out").iterdir()}
    shutil.rmtree(raw.parent / "out")
    make(raw, seed=3, workers=2)
    assert {path.name: path.read_bytes() for path in (raw.parent / "out").iterdir()} == alone


def test_few_bytes_are_not_worth_another_process(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def alone(function: Any, jobs: Any, workers: int) -> Any:
        asked.append(workers)
        return run_in_processes(function, jobs, 1)

    monkeypatch.setattr(slicemaker, "run_in_processes", alone)
    make(raw, workers=3)
    size = sum(path.stat().st_size for path in raw.rglob("*.nii.gz"))
    for share, expected in ((1.5, 1), (0.6, 2), (0.01, 3)):
        shutil.rmtree(raw.parent / "out")
        monkeypatch.setattr(slicemaker, "WORTH_A_PROCESS", int(size * share))
        make(raw, workers=3)
        assert asked.pop() == expected
    assert asked == [1]


def test_the_command_line(raw: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "scripts" / "SliceMaker.py"), "--in-path", str(raw), *arguments]
        return subprocess.run(command, cwd=raw, capture_output=True, text=True, check=False)

    done = run("--out_path", str(raw.parent / "out"), "--process_num", "1", "--task", "Tumor")
    assert done.returncode == 0, done.stderr
    assert "cases: 5" in done.stdout
    bad = run("--outpath", str(raw.parent / "out"), "--task", "spleen")
    assert bad.returncode == 2
    assert bad.stderr == "error: there is no kits task 'spleen': choose one of organ, tumor, all\n"


def test_workers_start_without_torch_and_pydicom() -> None:
    code = "import sys, datasets.slicing.cut_case; sys.exit(bool({'torch', 'pydicom'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
