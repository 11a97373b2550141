"""Geometry for any orientation, spacing, obliquity and size: nothing is mirrored without a word."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from datasets.raw.layout import Case
from datasets.raw.options import AS_IT_SHOULD_BE, ReadingOptions
from datasets.raw.volume import Volume, read_volume, write_labels
from tests.data import ORIENTATIONS, ct_and_label, oriented, save, voxels
from utils.errors import UserError

LABELS = (0, 1, 2)
HEADER, ARRAY = ReadingOptions(label_geometry="header"), ReadingOptions(label_geometry="array")
sizes, spacings = st.integers(1, 7), st.floats(0.2, 8)
angles = st.floats(-180, 180)
properties = settings(max_examples=60, deadline=None, derandomize=True, database=None)


class Grid(NamedTuple):
    """A NIfTI grid: its shape, and an affine of any obliquity."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def image(self, seed: int, highest: int) -> Any:
        voxels = np.random.default_rng(seed).integers(0, highest + 1, self.shape)
        return nib.Nifti1Image(voxels.astype(np.int16), self.affine)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    shape = (draw(sizes), draw(sizes), draw(sizes))
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", [draw(angles), draw(angles), draw(angles)], degrees=True).as_matrix()
    affine[:3, :3] = turn * [draw(spacings), draw(spacings), draw(spacings)]
    affine[:3, 3] = [draw(st.floats(-300, 300)) for _ in range(3)]
    return Grid(shape, affine)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def write(image: Any, path: Path, codes: str | None = None) -> Path:
    """Write an image, its voxels stored along `codes`, its place in the world the same."""
    if codes is not None:
        image = image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt(codes)))
    nib.save(image, path)
    return path


def read(image: Path, label: Path | None, reading: ReadingOptions = AS_IT_SHOULD_BE) -> Volume:
    return read_volume(Case("1", image, label), LABELS, reading=reading)


@properties
@given(grid=grids(), codes=st.sampled_from(ORIENTATIONS))
def test_an_image_looks_the_same_however_it_is_stored_and_results_go_back(folder: Path, grid: Grid, codes: str) -> None:
    image = grid.image(0, 1000)
    here = read(write(image, folder / "here.nii"), None)
    there = read(write(image, folder / "there.nii", codes), None)
    np.testing.assert_array_equal(here.image, there.image)
    np.testing.assert_allclose(here.spacing, there.spacing, rtol=1e-4)

    result = (there.image % 3).astype(np.uint8)
    write_labels(folder / "result.nii", result, there)
    written, source = nib.load(folder / "result.nii"), nib.load(folder / "there.nii")
    np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(source.dataobj) % 3)
    np.testing.assert_array_equal(written.affine, source.affine)


@properties
@given(grid=grids(), codes=st.sampled_from(ORIENTATIONS))
def test_a_label_stored_otherwise_is_refused_and_turned_on_request(folder: Path, grid: Grid, codes: str) -> None:
    image, label = write(grid.image(0, 1000), folder / "image.nii"), grid.image(1, 2)
    expected = read(image, write(label, folder / "label.nii"))
    assert expected.notes == [] and expected.label_geometry is None
    other = write(label, folder / "other.nii", codes)
    stored = nib.orientations.io_orientation(np.linalg.inv(nib.load(image).affine) @ nib.load(other).affine)
    if np.array_equal(stored, [[0, 1], [1, 1], [2, 1]]):
        np.testing.assert_array_equal(read(image, other).label, expected.label)
        return
    with pytest.raises(UserError, match=r"other.nii: has the orientation .*header .*fits.*--label_geometry array"):
        read(image, other)
    turned = read(image, other, HEADER)
    np.testing.assert_array_equal(turned.label, expected.label)
    assert turned.label_geometry == "header"
    assert len(turned.notes) == 1 and "has the orientation" in turned.notes[0] and "turned" in turned.notes[0]


@properties
@given(grid=grids(), codes=st.sampled_from(ORIENTATIONS))
def test_a_header_that_is_wrong_is_put_aside_on_request(folder: Path, grid: Grid, codes: str) -> None:
    """The arrays match, as in some files of LiTS, and the label's header tells another orientation."""
    image, label = write(grid.image(0, 1000), folder / "image.nii"), grid.image(1, 2)
    expected = read(image, write(label, folder / "label.nii")).label
    affine = write(label, folder / "other.nii", codes)
    wrong = write(nib.Nifti1Image(np.asarray(label.dataobj), nib.load(affine).affine), folder / "wrong.nii")
    taken = read(image, wrong, ARRAY)
    np.testing.assert_array_equal(taken.label, expected)
    np.testing.assert_array_equal(taken.affine, nib.load(image).affine)


@properties
@given(grid=grids(), shift=st.floats(0.01, 50), stretch=st.floats(1.01, 3))
def test_spacing_and_origin_are_noted_each_by_itself(folder: Path, grid: Grid, shift: float, stretch: float) -> None:
    image, label = write(grid.image(0, 1000), folder / "image.nii"), grid.image(1, 2)
    moved, stretched = grid.affine.copy(), grid.affine.copy()
    moved[:3, 3] += shift
    stretched[:3, :3] *= stretch
    for affine, there, absent in ((moved, "origin by", "spacing"), (stretched, "spacing (", "origin")):
        path = write(nib.Nifti1Image(np.asarray(label.dataobj), affine), folder / "label.nii")
        (note,) = read(image, path).notes
        assert there in note and absent not in note and "orientation" not in note


def test_swapped_axes(tmp_path: Path) -> None:
    ct, label = ct_and_label()
    image = save(ct, tmp_path / "image.nii", "LPS")
    permuted = save(label, tmp_path / "permuted.nii", "SLP")
    with pytest.raises(UserError, match=r"permuted.nii: has the orientation SLP, but image.nii LPS; .*array .*not fit"):
        read(image, permuted)
    np.testing.assert_array_equal(read(image, permuted, HEADER).label, label)
    with pytest.raises(UserError, match="by --label_geometry array it does not fit"):
        read(image, permuted, ARRAY)
    write(nib.Nifti1Image(voxels(permuted).copy(), nib.load(image).affine), permuted)
    with pytest.raises(UserError, match=r"has shape \(8, 24, 20\), but .* its axes are swapped"):
        read(image, permuted, HEADER)


def test_a_turned_label_that_lies_elsewhere_does_not_fit(tmp_path: Path) -> None:
    ct, label = ct_and_label()
    image, other = save(ct, tmp_path / "image.nii", "LPS"), oriented(label, "RAS")
    affine = other.affine.copy()
    affine[0, 3] += 5
    path = write(nib.Nifti1Image(other.dataobj, affine), tmp_path / "label.nii")
    with pytest.raises(UserError, match=r"then it does not fit the image.*takes its voxels as they are \(fits\)"):
        read(image, path)
    with pytest.raises(UserError, match="by --label_geometry header it does not fit; resample"):
        read(image, path, HEADER)


def test_sform_and_qform_that_disagree(tmp_path: Path) -> None:
    ct, label = ct_and_label()
    path, mask = save(ct, tmp_path / "image.nii", "LPS"), save(label, tmp_path / "label.nii", "LPS")
    image = nib.load(path, mmap=False)
    other = image.affine @ np.diag([-1, 1, 1, 1])
    image.set_qform(other, 1)
    nib.save(image, path)
    assert read(path, mask).notes == ["its sform is LPS, but its qform RPS: the sform is used"]
    np.testing.assert_array_equal(read(path, mask).image, ct)

    shifted = image.affine.copy()
    shifted[0, 3] += 7
    image.set_qform(shifted, 1)
    nib.save(image, path)
    (note,) = read(path, mask).notes
    assert "sform and qform lie 10 voxels apart" in note


def test_a_header_without_orientation(tmp_path: Path) -> None:
    ct, label = ct_and_label()
    path, mask = save(ct, tmp_path / "image.nii", "LPS"), save(label, tmp_path / "label.nii", "LPS")
    bare = nib.load(mask, mmap=False)
    bare.set_sform(None, 0)
    bare.set_qform(None, 0)
    nib.save(bare, mask)
    volume = read(path, mask)
    np.testing.assert_array_equal(volume.label, label)
    assert volume.notes == ["the segmentation's header has no orientation: taken as that of the image"]
