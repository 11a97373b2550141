"""SliceMaker --unlabelled: cases without segmentation, and any NIfTI files, cut into a folder of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datasets.slices.slice_folder import SliceFolder
from datasets.slicing.options import RawOptions, SliceMakerOptions
from phantoms.files import make_phantoms
from phantoms.recipe import Recipe
from tests.data import ct_and_label, cut_all, kits_case, loose_ct, save
from tests.paths import ROOT
from utils.errors import UserError
from utils.options import Parser


def on_disk(folder: Path) -> dict[str, int]:
    """Every file and when it was written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.*")}


def slices_in(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.npz")}


def test_phantoms_without_segmentation_go_into_a_folder_of_their_own(tmp_path: Path) -> None:
    make_phantoms(tmp_path / "raw", Recipe("kits", 0, 32, (4, 6), 0.0), cases=4, unlabelled=2)
    alone = cut_all(tmp_path / "raw", tmp_path / "alone", unlabelled=None)
    summary = cut_all(tmp_path / "raw", tmp_path / "out", unlabelled=1.0)
    assert "skipped, no segmentation (--unlabelled cuts them): 00210, 00211" in str(alone)
    assert "cases without segmentation: 2, 2 cut now" in str(summary) and "skipped" not in str(summary)
    assert summary.unlabelled is not None and summary.unlabelled.slices == summary.unlabelled.new
    made = slices_in(tmp_path / "out" / "unlabelled")
    assert len(made) == summary.unlabelled.slices >= 8
    assert {name.split("_")[0] for name in made} == {"00210", "00211"}
    slices = tmp_path / "alone"
    same = {path.name: path.read_bytes() for path in slices.iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.*")} == same


@pytest.mark.parametrize(("codes", "backwards"), [("LPS", False), ("RAI", True), ("IPL", True)])
def test_any_nifti_files_are_cut_with_the_same_axes(tmp_path: Path, codes: str, backwards: bool) -> None:
    image, _ = ct_and_label()
    save(image, tmp_path / "raw" / "some_patient.v2.nii.gz", codes)
    cut_all(tmp_path / "raw", tmp_path / "out", unlabelled=1.0)
    folder = tmp_path / "out" / "unlabelled"
    for index in range(8):
        with np.load(folder / f"some_patient.v2_{index}.npz", allow_pickle=False) as content:
            assert content.files == ["ct"] and content["ct"].dtype == np.int16
            np.testing.assert_array_equal(content["ct"], image[7 - index if backwards else index])


def test_the_command_line_leaves_the_training_slices_alone(tmp_path: Path) -> None:
    for number in range(3):
        kits_case(tmp_path / "kits", number)
    out = tmp_path / "out"
    cut_all(tmp_path / "kits", out, unlabelled=None)
    before = on_disk(out)
    loose_ct(tmp_path / "any", "b", "a")
    command = [sys.executable, ROOT / "scripts" / "SliceMaker.py", "--dataset", "kits", "--unlabelled"]
    arguments = ["--inpath", tmp_path / "any", "--outpath", out]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cases without segmentation: 2, 2 cut now, 0 done before\n")
    assert len(slices_in(out / "unlabelled")) == 2 * 2
    assert before.items() < on_disk(out).items()


def test_again_only_what_the_options_change(tmp_path: Path) -> None:
    raw, out = loose_ct(tmp_path / "raw", "a", "b"), tmp_path / "out" / "unlabelled"
    few = cut_all(raw, tmp_path / "out", unlabelled=0.25, seed=3)
    first = on_disk(out)
    again = cut_all(raw, tmp_path / "out", unlabelled=0.25)
    assert few.unlabelled is not None and again.unlabelled is not None
    assert (few.unlabelled.cut, few.unlabelled.new, again.unlabelled.cut, again.unlabelled.new) == (2, 4, 0, 0)
    slices = {name: time for name, time in first.items() if name.endswith(".npz")}
    assert slices.items() < on_disk(out).items()
    cut_all(raw, tmp_path / "out", unlabelled=1.0)
    assert len(slices_in(out)) == 16 and slices.items() < on_disk(out).items()
    cut_all(raw, tmp_path / "out", unlabelled=0.25)
    assert slices_in(out) == set(slices)


def test_a_repaired_file_is_cut_and_a_changed_one_cut_again(tmp_path: Path) -> None:
    raw, out = loose_ct(tmp_path / "raw", "a", "b", "c"), tmp_path / "out"
    good = (raw / "b.nii.gz").read_bytes()
    (raw / "b.nii.gz").write_bytes(good[:200])
    with pytest.raises(UserError, match=r"b\.nii\.gz: cannot be read"):
        cut_all(raw, out)
    assert {name[0] for name in slices_in(out / "unlabelled")} == {"a", "c"}
    assert not list(out.rglob("*.npy"))
    (raw / "b.nii.gz").write_bytes(good)
    image, _ = ct_and_label(seed=77)
    save(image, raw / "a.nii.gz", "LPS")
    os.utime(raw / "a.nii.gz", (1, 1))
    summary = cut_all(raw, out, unlabelled=1.0)
    assert summary.unlabelled is not None and summary.unlabelled.cut == 3
    with np.load(out / "unlabelled" / "a_5.npz") as content:
        np.testing.assert_array_equal(content["ct"], image[5])
    (raw / "c.nii.gz").unlink()
    with pytest.raises(UserError, match=r"unlabelled: lists case c, .* bring it back or give another --outpath$"):
        cut_all(raw, out)


def test_a_case_that_has_a_segmentation_now_moves_to_the_training_slices(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    label = kits_case(raw, 1) / "segmentation.nii.gz"
    kits_case(raw, 0)
    kept = label.read_bytes()
    label.unlink()
    cut_all(raw, out)
    assert {name[:5] for name in slices_in(out / "unlabelled")} == {"00001"}
    label.write_bytes(kept)
    cut_all(raw, out)
    assert {name[:5] for name in slices_in(out)} == {"00000", "00001"}
    assert not on_disk(out / "unlabelled")


def test_refused(tmp_path: Path) -> None:
    raw, out = loose_ct(tmp_path / "raw", "a"), tmp_path / "out"
    words = ["--inpath", str(raw), "--outpath", str(out), "--unlabelled", "1.5"]
    with pytest.raises(UserError, match=r"--unlabelled: must be a number above 0 and at most 1, not 1\.5"):
        Parser(None).read(RawOptions, SliceMakerOptions, words=words)
    with pytest.raises(UserError, match="--seed -1"):
        cut_all(raw, out, seed=-1)
    with pytest.raises(UserError, match=r"holds no case; .* nor does it hold images"):
        cut_all(tmp_path, out)
    assert not out.exists()
    cut_all(raw, out)
    with pytest.raises(UserError, match=r"holds slices without masks; give it to train_kd\.py as --unlabelled"):
        SliceFolder.open(out / "unlabelled", "kits", "tumor")
    kits_case(tmp_path / "kits", 0)
    with pytest.raises(UserError, match="is for slices without masks; give another --outpath"):
        cut_all(tmp_path / "kits", out / "unlabelled", unlabelled=None)


def test_a_mistake_in_a_labelled_case_does_not_make_it_unlabelled(tmp_path: Path) -> None:
    image, label = ct_and_label()
    save(image, tmp_path / "raw" / "volume-1.nii")
    for number in (1, 2):
        save(label, tmp_path / "raw" / f"segmentation-{number}.nii")
    with pytest.raises(UserError, match=r"segmentation-2\.nii: its image is missing"):
        cut_all(tmp_path / "raw", tmp_path / "out", "lits")


def test_two_files_of_one_name(tmp_path: Path) -> None:
    raw = loose_ct(tmp_path / "raw", "a")
    save(ct_and_label()[0], raw / "a.nii")
    with pytest.raises(UserError, match=r"a\.nii\.gz: has the name of .*a\.nii; rename"):
        cut_all(raw, tmp_path / "out")
