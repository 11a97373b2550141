"""Volumes: the same array for any order and type of the file, and the same geometry when it is written back."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from datasets.raw.layout import Case
from datasets.raw.volume import read_volume, write_labels
from tests.data import KITS, LITS, ORIENTATIONS, ct_and_label, oriented, save
from utils.errors import UserError

LABELS = (0, 1, 2)


def case_of(folder: Path, image: np.ndarray, label: np.ndarray | None = None, codes: str = KITS) -> Case:
    path = save(image, folder / "image.nii.gz", codes)
    return Case("7", path, None if label is None else save(label, folder / "label.nii.gz", codes))


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_any_orientation_there_and_back(tmp_path: Path, codes: str) -> None:
    image, label = ct_and_label((3, 5, 4))
    label[0, 1, 2], label[2, 4, 0] = 1, 2
    case = case_of(tmp_path, image, label, codes)

    volume = read_volume(case, LABELS)

    np.testing.assert_array_equal(volume.image, image)
    np.testing.assert_array_equal(volume.label, label)
    assert volume.image.flags.c_contiguous and volume.label.flags.c_contiguous
    assert volume.spacing == pytest.approx((3.0, 0.8, 0.7))
    axis = next(axis for axis, code in enumerate(codes) if code in "IS")
    stored = nib.load(case.image)
    for number, plane in zip(volume.slices, volume.image, strict=True):
        stored_plane = np.take(np.asarray(stored.dataobj), number, axis)
        np.testing.assert_array_equal(np.sort(stored_plane, axis=None), np.sort(plane, axis=None))

    write_labels(tmp_path / "result.nii.gz", volume.label, volume)
    result, source = nib.load(tmp_path / "result.nii.gz"), nib.load(case.label)
    np.testing.assert_array_equal(np.asarray(result.dataobj), np.asarray(source.dataobj))
    np.testing.assert_array_equal(result.affine, stored.affine)
    assert result.header.get_zooms() == stored.header.get_zooms()
    assert result.get_data_dtype() == np.uint8
    for form in ("sform_code", "qform_code"):
        assert result.header[form] == stored.header[form]


def test_kits_and_lits_look_the_same(tmp_path: Path) -> None:
    image, label = ct_and_label()
    kits = read_volume(case_of(tmp_path / "kits", image, label, KITS), LABELS)
    lits = read_volume(case_of(tmp_path / "lits", image, label, LITS), LABELS)
    np.testing.assert_array_equal(kits.image, lits.image)
    assert kits.slices.tolist() == [7, 6, 5, 4, 3, 2, 1, 0]
    assert lits.slices.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_hounsfield_units_stay_whatever_the_type(tmp_path: Path, dtype: type) -> None:
    image, _ = ct_and_label()
    volume = read_volume(case_of(tmp_path, image.astype(dtype)), LABELS)
    np.testing.assert_array_equal(volume.image, image)
    assert volume.image.dtype == np.int16 and (volume.scale, volume.shift) == (1, 0)


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    image, _ = ct_and_label()
    nifti = oriented((image + 1024).astype(np.uint16), KITS)
    nifti.header.set_slope_inter(1, -1024)
    data = nifti.header.copy()
    path = tmp_path / "image.nii"
    with path.open("wb") as file:
        data["vox_offset"] = 352
        data.write_to(file)
        file.write(b"\0" * (352 - file.tell()))
        file.write(np.asarray(nifti.dataobj).tobytes(order="F"))
    volume = read_volume(Case("7", path, None), LABELS)
    np.testing.assert_array_equal(volume.image, image)
    assert (volume.scale, volume.shift) == (1, 0)


def test_resampled_ct_is_rounded_and_mr_is_scaled(tmp_path: Path) -> None:
    ct = ct_and_label()[0] + np.float32(0.3)
    volume = read_volume(case_of(tmp_path, ct), LABELS)
    assert (volume.scale, volume.shift) == (1, 0)
    np.testing.assert_array_equal(volume.image, np.rint(ct))

    mr = np.random.default_rng(0).random((4, 5, 6), np.float32) * 3 + 1
    volume = read_volume(case_of(tmp_path, mr), LABELS)
    np.testing.assert_allclose(volume.image * volume.scale + volume.shift, mr, rtol=0, atol=0.501 * volume.scale)


def test_values_beyond_int16_are_scaled(tmp_path: Path) -> None:
    image = np.linspace(0, 65535, 120).astype(np.uint16).reshape(4, 5, 6)
    volume = read_volume(case_of(tmp_path, image), LABELS)
    np.testing.assert_allclose(volume.image * volume.scale + volume.shift, image, rtol=0, atol=0.501 * volume.scale)


def test_a_constant_image(tmp_path: Path) -> None:
    image = np.full((3, 4, 5), 0.25, np.float32)
    volume = read_volume(case_of(tmp_path, image), LABELS)
    np.testing.assert_allclose(volume.image * volume.scale + volume.shift, 0.25)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
def test_labels_of_any_type(tmp_path: Path, dtype: type) -> None:
    image, label = ct_and_label()
    volume = read_volume(case_of(tmp_path, image, label.astype(dtype)), LABELS)
    np.testing.assert_array_equal(volume.label, label)
    assert volume.label.dtype == np.uint8


@pytest.mark.parametrize("scaled", [0.9999999, 1.00002, 1.004, 0.996])
def test_labels_that_scaling_moved_are_rounded_with_a_note(tmp_path: Path, scaled: float) -> None:
    image, label = ct_and_label()
    volume = read_volume(case_of(tmp_path, image, np.where(label == 1, scaled, label)), LABELS)
    np.testing.assert_array_equal(volume.label, label)
    (note,) = volume.notes
    assert note.startswith(f"labels such as {scaled:.10g} are rounded, by at most ")


def test_labels_in_scaled_integers(tmp_path: Path) -> None:
    image, label = ct_and_label()
    case = case_of(tmp_path, image, label)
    scaled = oriented(label.astype(np.float64), KITS)
    for dtype in (np.uint8, np.int16):
        scaled.set_data_dtype(dtype)
        nib.save(scaled, case.label)
        np.testing.assert_array_equal(read_volume(case, LABELS).label, label)


UNKNOWN = [(300, np.uint16), (-1, np.int16), (0.5, np.float32), (1.02, np.float64), (2.98765, np.float64)]


@pytest.mark.parametrize(("value", "dtype"), [*UNKNOWN, (3, np.uint8), (np.nan, np.float32), (np.inf, np.float32)])
def test_unknown_labels_are_named(tmp_path: Path, value: float, dtype: type) -> None:
    image, label = ct_and_label()
    label = label.astype(dtype)
    label[0, 0, 0] = value
    with pytest.raises(UserError, match=rf"label\.nii\.gz: holds the unknown labels {value}; expected only 0, 1, 2"):
        read_volume(case_of(tmp_path, image, label), LABELS)


def test_a_gap_in_the_allowed_labels_is_kept(tmp_path: Path) -> None:
    image, label = ct_and_label()
    with pytest.raises(UserError, match="unknown labels 1; expected only 0, 2, 4"):
        read_volume(case_of(tmp_path, image, label), (0, 2, 4))


def test_shapes_that_disagree(tmp_path: Path) -> None:
    image, label = ct_and_label()
    with pytest.raises(UserError, match=r"label\.nii\.gz: has shape \(7, 20, 24\)"):
        read_volume(case_of(tmp_path, image, label[1:]), LABELS)


def test_small_affine_differences_are_noted(tmp_path: Path) -> None:
    image, label = ct_and_label()
    case = case_of(tmp_path, image, label)
    moved = nib.load(case.label)
    affine = moved.affine.copy()
    affine[0, 3] += 0.5
    nib.save(nib.Nifti1Image(label[::-1], affine), case.label)
    volume = read_volume(case, LABELS)
    assert volume.notes == ["the segmentation's header differs in origin by 0.5 mm: the image's is used"]
    np.testing.assert_array_equal(volume.affine, nib.load(case.image).affine)
    np.testing.assert_array_equal(volume.label, label)


def test_broken_files_are_named(tmp_path: Path) -> None:
    image, _ = ct_and_label()
    valid = case_of(tmp_path, image).image.read_bytes()
    path = tmp_path / "broken.nii.gz"
    middle = len(valid) // 2
    flipped = valid[:middle] + bytes([valid[middle] ^ 0xFF]) + valid[middle + 1 :]
    for content in (b"", b"no image at all" * 100, valid[:middle], valid[:-30] + b"x" * 30, flipped):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"broken\.nii\.gz: cannot be read as NIfTI"):
            read_volume(Case("7", path, None), LABELS)
    with pytest.raises(UserError, match="absent"):
        read_volume(Case("7", tmp_path / "absent.nii", None), LABELS)


def test_one_channel_of_a_4d_image(tmp_path: Path) -> None:
    image, _ = ct_and_label()
    both = oriented(np.stack([image, image + 5], axis=-1), KITS)
    nib.save(both, tmp_path / "image.nii.gz")
    for channel in (0, 1):
        volume = read_volume(Case("7", tmp_path / "image.nii.gz", None, channel), LABELS)
        np.testing.assert_array_equal(volume.image, image + 5 * channel)
    with pytest.raises(UserError, match=r"image\.nii\.gz: has shape .*; expected one 3D volume: split a 4D series"):
        read_volume(Case("7", tmp_path / "image.nii.gz", None), LABELS)
    write_labels(tmp_path / "result.nii", np.ones(image.shape, np.uint8), volume)
    assert nib.load(tmp_path / "result.nii").shape == image.shape


def test_gzip_in_several_members_or_under_another_name(tmp_path: Path) -> None:
    image, _ = ct_and_label()
    raw = gzip.decompress(case_of(tmp_path, image).image.read_bytes())
    path = tmp_path / "members.nii"
    path.write_bytes(gzip.compress(raw[:1000]) + gzip.compress(raw[1000:]))
    np.testing.assert_array_equal(read_volume(Case("7", path, None), LABELS).image, image)


def test_reading_needs_at_most_two_volumes_of_memory(tmp_path: Path) -> None:
    image = np.zeros((64, 256, 256), np.int16)
    case = case_of(tmp_path, image, image.astype(np.uint8))
    tracemalloc.start()
    read_volume(case, LABELS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * image.nbytes + (4 << 20)
