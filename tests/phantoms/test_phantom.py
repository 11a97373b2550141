"""Phantoms: the same for the same seed, in the layout's geometry, with HU and labels that belong together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from phantoms.files import Masks, make_phantoms
from phantoms.recipe import Recipe, synthesise
from phantoms.tissue import Difficulty
from tests.paths import SCRIPTS
from utils.errors import UserError

SCRIPT = SCRIPTS / "make_phantom.py"
KITS = Recipe("kits", size=64, slices=(12, 14))
LITS = Recipe("lits", size=64, slices=(12, 14))
KITS_AROUND = Recipe("kits", size=0)
BOTH = pytest.mark.parametrize("recipe", [KITS, LITS], ids=["kits", "lits"])


def voxels(path: Path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


def test_a_case_depends_on_seed_and_number_only(tmp_path: Path) -> None:
    make_phantoms(tmp_path / "two", KITS, cases=2)
    make_phantoms(tmp_path / "three", KITS, cases=3, workers=2)
    make_phantoms(tmp_path / "other", Recipe("kits", seed=1, size=64, slices=(12, 14)), cases=1)
    for case in ("case_00000", "case_00001"):
        for file in ("imaging.nii.gz", "segmentation.nii.gz"):
            two, three = (voxels(tmp_path / made / case / file) for made in ("two", "three"))
            assert np.array_equal(two, three)
    first, other = (voxels(tmp_path / made / "case_00000" / "imaging.nii.gz") for made in ("two", "other"))
    assert not np.array_equal(first, other)


@BOTH
def test_labels_are_attached_tumours_in_every_case(recipe: Recipe) -> None:
    for number in range(4):
        _, label, *_ = synthesise(recipe, number)
        assert set(np.unique(label)) == {0, 1, 2}
        near_organ = ndimage.binary_dilation(label == 1, np.ones((3, 3, 3)))
        lesions, count = ndimage.label(label == 2)
        assert all(near_organ[lesions == lesion].any() for lesion in range(1, count + 1))


def test_liver_tumours_stay_in_the_liver() -> None:
    bare = Recipe("lits", size=64, slices=(12, 14), tumour_free=1.0)
    for number in range(3):
        with_tumours, without = synthesise(LITS, number)[1], synthesise(bare, number)[1]
        assert not (without == 2).any()
        assert np.array_equal(with_tumours > 0, without > 0)


@BOTH
def test_tissues_have_their_hu(recipe: Recipe) -> None:
    low, high = (95, 215) if recipe.dataset == "kits" else (70, 125)
    for number in range(3):
        image, label, *_ = synthesise(recipe, number)
        assert image.dtype == np.int16
        assert low < np.median(image[label == 1]) < high
        assert np.median(image[label == 2]) < np.median(image[label == 1]) - 10
        assert np.median(image[:, :4, :4]) == pytest.approx(-1000, abs=15)
        fat = (image > -140) & (image < -60)
        assert 0.08 < fat.mean() < 0.5
        assert 0.002 < (image > 250).mean() < 0.08


def test_cysts_are_water_and_not_tumour() -> None:
    clear = Difficulty(cysts_per_organ=(3, 3), cyst_diameter=(30, 32), cyst=(9, 11), noise=(0.5, 1))
    image, label, *_ = synthesise(Recipe("lits", size=64, slices=(12, 14), tumour_free=1, difficulty=clear), 0)
    assert ((label == 1) & (abs(image - 10) < 5)).sum() > 30


def test_difficulty_sets_contrast() -> None:
    def case(contrast: float) -> tuple[np.ndarray, np.ndarray]:
        difficulty = Difficulty(liver_tumour_contrast=(contrast, contrast), tumour_diameter=(40, 50), necrosis_share=0)
        image, label, *_ = synthesise(Recipe("lits", size=64, slices=(12, 12), difficulty=difficulty), 0)
        return image, label

    (strong, label), (weak, same) = case(-90), case(-10)
    assert np.array_equal(label, same)
    inside = ndimage.binary_erosion(label == 2)
    assert np.median(weak[inside]) - np.median(strong[inside]) == pytest.approx(80, abs=10)


def test_kits_layout(tmp_path: Path) -> None:
    make_phantoms(tmp_path, KITS, cases=2, unlabelled=1)
    assert json.loads((tmp_path / "kits.json").read_text()) == [
        {"case_id": "case_00000"}, {"case_id": "case_00001"}, {"case_id": "case_00210"}
    ]  # fmt: skip
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


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """One uint16 label volume in the KiTS layout."""
    return write_mask(tmp_path / "masks", 7, KITS).parent.parent


def write_mask(folder: Path, number: int, recipe: Recipe) -> Path:
    _, label, _, affine = synthesise(recipe, 3)
    path = folder / f"case_{number:05d}" / "segmentation.nii.gz"
    path.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(label[::-1].astype(np.uint16), affine), path)
    return path


def test_masks_keep_labels_and_geometry(tmp_path: Path, masks: Path) -> None:
    out = tmp_path / "out"
    assert make_phantoms(out, KITS_AROUND, masks=Masks(masks)).made == 1
    given, case = masks / "case_00007" / "segmentation.nii.gz", out / "case_00007"
    image, label = nib.load(case / "imaging.nii.gz"), nib.load(given)
    assert np.array_equal(voxels(case / "segmentation.nii.gz"), voxels(given))
    assert nib.load(case / "segmentation.nii.gz").affine.tobytes() == label.affine.tobytes()
    assert image.affine.tobytes() == label.affine.tobytes() and image.shape == label.shape
    hu, truth = voxels(case / "imaging.nii.gz"), voxels(given)
    kidney = np.median(hu[truth == 1])
    assert 95 < kidney < 215
    assert np.median(hu[truth == 2]) < kidney - 10
    assert make_phantoms(out, KITS_AROUND, masks=Masks(masks)).made == 0
    nib.save(nib.Nifti1Image(voxels(given)[:, ::-1], label.affine), given)
    assert make_phantoms(out, KITS_AROUND, masks=Masks(masks)).made == 1, "the mask is another one now"


def test_masks_can_be_resized_within_their_slices(tmp_path: Path, masks: Path) -> None:
    make_phantoms(tmp_path / "out", Recipe("kits", size=32), masks=Masks(masks))
    given = nib.load(masks / "case_00007" / "segmentation.nii.gz")
    for file in ("imaging.nii.gz", "segmentation.nii.gz"):
        made = nib.load(tmp_path / "out" / "case_00007" / file)
        assert made.shape == (given.shape[0], 32, 32)
        for corner in ((0, 0, 0), (1, 1, 1)):  # of the volume, half a voxel beyond its outer centres
            places = [
                nib.affines.apply_affine(each.affine, np.multiply(corner, each.shape) - 0.5) for each in (given, made)
            ]
            assert np.allclose(*places, atol=1e-4)
    # Pixel centres of every second row lie between two rows: nearest takes the latter.
    assert np.array_equal(voxels(Path(made.get_filename())), voxels(Path(given.get_filename()))[:, 1::2, 1::2])


def test_masks_are_chosen_by_slices_and_tumour(tmp_path: Path, masks: Path) -> None:
    write_mask(masks, 8, Recipe("kits", size=32, slices=(30, 30)))
    first, second = (nib.load(masks / f"case_0000{number}" / "segmentation.nii.gz") for number in (7, 8))
    volumes = [
        (voxels(Path(each.get_filename())) == 2).sum() * abs(np.linalg.det(each.affine)) / 1000
        for each in (first, second)
    ]
    between = sum(volumes) / 2

    def chosen(chooser: Masks) -> list[str]:
        return [path.parent.name for path in chooser.paths(workers=2)]

    assert chosen(Masks(masks)) == ["case_00007", "case_00008"]
    assert chosen(Masks(masks, slices=(20, 30))) == ["case_00008"]
    assert chosen(Masks(masks, slices=(1, 29))) == ["case_00007"]
    assert chosen(Masks(masks, tumour=between)) == [f"case_0000{7 + int(np.argmax(volumes))}"]
    with pytest.raises(UserError, match="no label volume"):
        chosen(Masks(masks, tumour=1e6))


def test_bad_masks_are_refused_and_nothing_is_written(tmp_path: Path, masks: Path) -> None:
    given = masks / "case_00007" / "segmentation.nii.gz"
    label = nib.load(given)
    nib.save(nib.Nifti1Image(voxels(given) + np.uint16(1), label.affine), given)
    with pytest.raises(UserError, match=r"segmentation\.nii\.gz: has labels 1 to 3"):
        make_phantoms(tmp_path / "out", KITS_AROUND, masks=Masks(masks))
    given.write_bytes(b"no image")
    with pytest.raises(UserError, match="cannot be read"):
        make_phantoms(tmp_path / "out", KITS_AROUND, masks=Masks(masks))
    with pytest.raises(UserError, match="holds no case_NNNNN"):
        make_phantoms(tmp_path / "out", KITS_AROUND, masks=Masks(tmp_path))
    with pytest.raises(UserError, match="give another --outpath"):
        make_phantoms(masks, KITS_AROUND, masks=Masks(masks))
    assert not list(tmp_path.glob("out/**/*.nii.gz"))


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
def test_bad_usage_is_one_line_and_status_2(tmp_path: Path, arguments: list[str]) -> None:
    command = [sys.executable, str(SCRIPT), "--outpath", str(tmp_path / "out"), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
