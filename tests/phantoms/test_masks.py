"""Images around real labels: which labels are used, and that their geometry stays."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from phantoms.files import make_phantoms
from phantoms.masks import Masks
from phantoms.recipe import Recipe, synthesise
from tests.data import voxels
from utils.errors import UserError

KITS = Recipe("kits", size=64, slices=(12, 14))
KITS_AROUND = Recipe("kits", size=0)


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
