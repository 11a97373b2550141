"""Phantoms as files: the same for the same seed, in the geometry of their layout, made only once."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from phantoms.files import make_phantoms
from phantoms.recipe import Recipe
from tests.data import voxels
from tests.paths import SCRIPTS

KITS = Recipe("kits", size=64, slices=(12, 14))
LITS = Recipe("lits", size=64, slices=(12, 14))


def test_a_case_depends_on_seed_and_number_only(tmp_path: Path) -> None:
    make_phantoms(tmp_path / "two", KITS, cases=2)
    make_phantoms(tmp_path / "three", KITS, cases=3, workers=2)
    make_phantoms(tmp_path / "other", Recipe("kits", seed=1, size=64, slices=(12, 14)), cases=1)
    for case in ("case_00000", "case_00001"):
        for file in ("imaging.nii.gz", "segmentation.nii.gz"):
            two, three = (voxels(tmp_path / folder / case / file) for folder in ("two", "three"))
            assert np.array_equal(two, three)
    first, other = (voxels(tmp_path / folder / "case_00000" / "imaging.nii.gz") for folder in ("two", "other"))
    assert not np.array_equal(first, other)


def test_kits_layout(tmp_path: Path) -> None:
    make_phantoms(tmp_path, KITS, cases=2, unlabelled=1)
    listed = json.loads((tmp_path / "kits.json").read_text())
    assert listed == [{"case_id": f"case_{number}"} for number in ("00000", "00001", "00210")]
    assert not (tmp_path / "case_00210" / "segmentation.nii.gz").exists()
    image = nib.load(tmp_path / "case_00000" / "imaging.nii.gz")
    label = nib.load(tmp_path / "case_00000" / "segmentation.nii.gz")
    assert nib.aff2axcodes(image.affine) == ("I", "P", "L")
    assert np.array_equal(image.affine, label.affine)
    assert (image.get_data_dtype(), label.get_data_dtype()) == (np.int16, np.uint8)
    assert image.shape[1:] == (64, 64) and 12 <= image.shape[0] <= 14
    thickness, row, column = image.header.get_zooms()
    assert 1 <= thickness <= 5
    assert row == column and 320 <= 64 * row <= 420


def test_lits_cases_are_stored_in_many_directions_and_lie_the_same_way(tmp_path: Path) -> None:
    make_phantoms(tmp_path, LITS, cases=4)
    directions = set()
    for number in range(4):
        image = nib.load(tmp_path / f"volume-{number}.nii.gz")
        label = nib.load(tmp_path / f"segmentation-{number}.nii.gz")
        directions.add(nib.aff2axcodes(image.affine))
        assert np.array_equal(image.affine, label.affine) and image.shape == label.shape

        def middle(where: np.ndarray, affine: np.ndarray = image.affine) -> np.ndarray:
            return nib.affines.apply_affine(affine, np.argwhere(where).mean(axis=0))

        hu = voxels(tmp_path / f"volume-{number}.nii.gz")
        body, bone, liver = middle(hu > -300), middle(hu > 350), middle(voxels(Path(label.get_filename())) > 0)
        assert liver[0] > body[0] + 10, "the liver is on the right"
        assert bone[1] < body[1], "the spine is at the back"
    assert len(directions) > 1
    assert all(codes[0] in "LR" and codes[1] in "AP" and codes[2] in "IS" for codes in directions)


def test_a_rerun_makes_only_what_is_missing(tmp_path: Path) -> None:
    assert make_phantoms(tmp_path, LITS, cases=2).made == 2
    before = (tmp_path / "volume-0.nii.gz").stat().st_mtime_ns
    (tmp_path / "segmentation-1.nii.gz").unlink()
    assert make_phantoms(tmp_path, LITS, cases=2).made == 1
    assert (tmp_path / "volume-0.nii.gz").stat().st_mtime_ns == before
    assert make_phantoms(tmp_path, Recipe("lits", seed=5, size=64, slices=(12, 14)), cases=2).made == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--dataset", "brats"],
        ["--size", "3"],
        ["--slices", "9", "5"],
        ["--cases", "-1"],
        ["--cases", "0"],
        ["--tumour-free", "2"],
        ["--dataset", "lits", "--masks", "."],
        ["--tumour", "50"],
        ["--masks", ".", "--size", "3"],
        ["--sizes", "64"],
    ],
    ids=" ".join,
)
def test_bad_usage_is_one_line_and_status_2(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setattr(sys, "argv", ["make_phantom.py", "--outpath", str(tmp_path / "out"), *arguments])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(SCRIPTS / "make_phantom.py"), run_name="__main__")
    message = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message.startswith("error: ") and message.count("\n") == 1
    assert not (tmp_path / "out").exists()
