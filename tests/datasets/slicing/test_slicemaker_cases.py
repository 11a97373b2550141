"""SliceMaker on cases that cannot be used, that were read otherwise before, and what the data set says of cases."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets.raw import open_layout
from datasets.raw.layout import Layout
from datasets.raw.options import ReadingOptions
from datasets.slices.slice_folder import SliceFolder
from datasets.slicing import slicemaker
from datasets.slicing.options import SliceMakerOptions
from datasets.slicing.slicemaker import make_slices
from datasets.splits import load_split
from tests.data import ct_and_label, kits_case, save
from tests.datasets.slicing.cutting import make, on_disk
from tests.paths import ROOT
from utils.errors import UserError


class TestUnusableCases:
    """All of them are named in one pass."""

    @pytest.fixture
    def damaged(self, raw: Path) -> Path:
        for number in (1, 3):
            _, label = ct_and_label(seed=number)
            save(label + 7, raw / f"case_{number:05d}" / "segmentation.nii.gz")
        return raw

    @pytest.mark.parametrize("workers", [1, 2])
    def test_are_named_and_nothing_can_be_trained_on(
        self, damaged: Path, workers: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(slicemaker, "WORTH_A_PROCESS", 1)
        with pytest.raises(UserError, match=r"raw: 2 cases cannot be used: .*case_00001/.*; .*case_00003/"):
            make(damaged, workers=workers)
        assert not list((damaged.parent / "out").glob("*.npy"))

    def test_keep_going_cuts_the_others(self, damaged: Path) -> None:
        script, out = ROOT / "scripts" / "SliceMaker.py", damaged.parent / "out"
        command = [sys.executable, script, "--inpath", damaged, "--outpath", out, "--keep_going"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and "cases: 3 " in done.stdout
        assert sorted(load_split(out / "splits.json").names) == ["00000", "00002", "00004"]
        (line,) = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.startswith("error: ")]
        assert "case_00001" in line and "case_00003" in line
        assert on_disk(out).keys() == {"00000", "00002", "00004"}
        assert {name[:5] for name in np.load(out / "kits_tumor_slices.npy")} < on_disk(out).keys()
        for number in (1, 3):
            kits_case(damaged, number)
        assert make(damaged).cut == 2

    def test_can_be_taken_away(self, damaged: Path) -> None:
        with pytest.raises(UserError, match="2 cases cannot be used"):
            make(damaged)
        for number in (1, 3):
            shutil.rmtree(damaged / f"case_{number:05d}")
        assert make(damaged).listed > 0

    def test_unlabelled_ones_too(self, raw: Path) -> None:
        for number in (1, 3):
            (raw / f"case_{number:05d}" / "segmentation.nii.gz").unlink()
            (raw / f"case_{number:05d}" / "imaging.nii.gz").write_bytes(b"no image")
        with pytest.raises(UserError, match=r"2 cases cannot be used: .*case_00001.*case_00003"):
            make(raw, unlabelled=0.5)
        summary = make(raw, unlabelled=0.5, keep_going=True)
        assert len(summary.unusable) == 2 and summary.listed > 0


def test_cases_are_read_again_where_another_check_asks_for_it(raw: Path) -> None:
    """As MR first, then as CT; without the check first, then with it."""
    out = raw.parent / "out"
    layout = open_layout("kits", raw)
    as_mr = replace(layout, window=None)

    def cut(layout: Layout, any_intensity: bool = False) -> int:
        reading = ReadingOptions(any_intensity=any_intensity)
        return make_slices(raw, out, layout, layout.label_map("tumor"), SliceMakerOptions(), reading).cut

    assert [cut(as_mr), cut(as_mr), cut(layout), cut(layout)] == [5, 0, 5, 0]
    assert [cut(layout, True), cut(as_mr, True), cut(as_mr)] == [0, 5, 5]


class TestFound:
    """What the data set says of a case reaches the slices."""

    def test_what_was_left_out_is_in_the_summary(self, raw: Path) -> None:
        (raw / "case_00001" / "segmentation.nii.gz").unlink()
        (raw / "case_00001" / "segmentation.nii.gz").symlink_to(raw / "absent")
        (raw / "case_00009").mkdir()
        text = str(make(raw))
        assert "cases: 4 " in text and "skipped" not in text
        assert "left out, segmentation not fetched" in text and "case_00001/segmentation.nii.gz" in text
        assert "folders of cases without a file: 1: case_00009" in text

    def test_nothing_but_segmentations_that_were_not_fetched(self, raw: Path) -> None:
        for path in raw.rglob("segmentation.nii.gz"):
            path.unlink()
            path.symlink_to(raw / "absent")
        with pytest.raises(
            UserError, match="none of its 0 cases has a segmentation; left out, segmentation not fetched"
        ):
            make(raw)

    def test_cysts(self, tmp_path: Path) -> None:
        for number in range(3):
            _, label = ct_and_label(seed=number)
            label[3, 6:8, 5:7] = 3
            save(label, kits_case(tmp_path / "raw", number) / "segmentation.nii.gz")
        assert make(tmp_path / "raw", "cyst", negatives=0, val_fraction=0).listed == 3
        with pytest.raises(UserError, match="was cut for cyst; cut it for organ with"):
            SliceFolder.open(tmp_path / "out", "kits", "organ")
        assert make(tmp_path / "raw", "organ", negatives=0, val_fraction=0).listed == 3 * 4

    def test_cysts_that_came_with_later_cases(self, raw: Path) -> None:
        make(raw, "organ")
        _, label = ct_and_label()
        label[3, 6:8, 5:7] = 3
        save(label, kits_case(raw, 5) / "segmentation.nii.gz")
        message = (
            r"out: task organ was cut from other labels, for .*raw holds label 3 \(cyst\) now; .* another --outpath"
        )
        with pytest.raises(UserError, match=message):
            make(raw, "organ")
        save(ct_and_label()[1], raw / "case_00005" / "segmentation.nii.gz")
        make(raw, "organ")

    def test_a_list_with_patients_and_parts(self, raw: Path) -> None:
        rows = ["image,label,patient,split"]
        for number in range(5):
            case = f"raw/case_{number:05d}"
            part = {0: "test", 1: "val"}.get(number, "")
            rows.append(f"{case}/imaging.nii.gz,{case}/segmentation.nii.gz,p{number % 3},{part}")
        (raw.parent / "own.csv").write_text("\n".join(rows))
        layout = open_layout("list", raw.parent, ("1=organ", "2=tumor"), (-100, 200))
        options = SliceMakerOptions(workers=1, test_fraction=0.2, val_fraction=0.2)
        out = raw.parent / "out"
        summary = make_slices(raw.parent / "own.csv", out, layout, layout.label_map("tumor"), options)
        split = summary.split
        assert [len(names) for names in (split.train, split.val, split.test)] == [1, 2, 2]
        assert {split.patient_of(name) for name in split.test} == {"p0"}
        slices = SliceFolder.open(out, "list", "tumor")
        assert slices.dataset_window == (-100, 200) and slices.patients[split.val[0]] == "p1"
        own = {"train": [split.val[0]], "val": [split.val[1]], "test": []}
        (out / "own.json").write_text(json.dumps(own))
        with pytest.raises(UserError, match=r"own\.json: patient p1 is in train .* and in val"):
            slices.with_split(out / "own.json")
        with pytest.raises(UserError, match=r"was cut for tumor; cut it for organ with: .*--dataset list"):
            SliceFolder.open(out, "list", "organ")
        assert make_slices(raw.parent / "own.csv", out, layout, layout.label_map("tumor"), options).cut == 0
