"""What is written of a case, without a network: volumes, the slices of a preview, labels in every orientation."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from datasets.labels import organ_and_tumor
from datasets.raw.layout import Case
from datasets.raw.volume import Volume, read_volume, write_labels
from engine.prediction.preview import preview_slices
from engine.prediction.volumes import measure, table, to_csv
from tests.data import ORIENTATIONS, ct_and_label, oriented, save, voxels

ALL = organ_and_tumor()["all"]


def volume_of(path: Path, image: nib.Nifti1Image) -> Volume:
    nib.save(image, path)
    return read_volume(Case("a", path, None), ())


def test_labels_lie_on_the_image_in_every_orientation(tmp_path: Path) -> None:
    image, label = ct_and_label((5, 6, 7))
    label = (np.arange(label.size) % 251).astype(np.uint8).reshape(label.shape)
    for codes in ORIENTATIONS:
        volume = read_volume(Case("a", save(image, tmp_path / "image.nii.gz", codes), None), ())
        write_labels(tmp_path / "labels.nii.gz", label, volume)
        written = nib.load(tmp_path / "labels.nii.gz")
        assert np.array_equal(written.affine, nib.load(tmp_path / "image.nii.gz").affine), codes
        assert np.array_equal(voxels(tmp_path / "labels.nii.gz"), np.asanyarray(oriented(label, codes).dataobj)), codes


def test_the_same_labels_make_the_same_file(tmp_path: Path) -> None:
    image, label = ct_and_label()
    volume = volume_of(tmp_path / "image.nii.gz", oriented(image, "LPS"))
    for name in ("a.nii.gz", "b.nii.gz"):
        write_labels(tmp_path / name, label, volume)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_name_in_the_header_is_not_passed_on(tmp_path: Path) -> None:
    image, label = ct_and_label()
    source = oriented(image, "LPS")
    source.header["descrip"] = source.header["db_name"] = source.header["aux_file"] = b"Doe^Jane"
    source.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Doe^Jane"))
    volume = volume_of(tmp_path / "image.nii", source)
    write_labels(tmp_path / "labels.nii", label, volume)
    assert b"Doe^Jane" in (tmp_path / "image.nii").read_bytes()
    assert b"Doe" not in (tmp_path / "labels.nii").read_bytes()
    assert np.array_equal(voxels(tmp_path / "labels.nii"), np.asanyarray(oriented(label, "LPS").dataobj))


@pytest.mark.parametrize("codes", ["LPS", "LPI", "IPL"])
def test_volumes_are_in_ml_and_slices_are_the_files_own(tmp_path: Path, codes: str) -> None:
    image, label = ct_and_label()
    volume = read_volume(Case("a", save(image, tmp_path / "image.nii.gz", codes), None), ())
    organ, tumor = measure(label, ALL, volume)
    assert (organ["name"], organ["label"], tumor["name"], tumor["label"]) == ("organ", 1, "tumor", 2)
    assert tumor["voxels"] == 18 and tumor["ml"] == pytest.approx(18 * 3.0 * 0.8 * 0.7 / 1000, rel=1e-3)
    flipped = codes != "LPS"
    assert (tumor["first_slice"], tumor["last_slice"]) == ((5, 6) if flipped else (1, 2))


def test_without_a_voxel_size_there_are_no_ml(tmp_path: Path) -> None:
    image, label = ct_and_label()
    bare = nib.Nifti1Image(image.transpose(2, 1, 0), None)
    rows = measure(label, ALL, volume_of(tmp_path / "bare.nii", bare))
    assert [row["ml"] for row in rows] == [None, None] and rows[1]["voxels"] == 18
    record = {"seconds": 1.5, "notes": ["one", "two"], "labels": rows[1:]}
    lines = to_csv(table({"a/b": record, "c": {"error": "c.nii: no"}})).splitlines()
    assert lines[1:] == ["a/b,2,tumor,18,,1,2,1.5,one; two", "c,,,,,,,,failed: c.nii: no"]


def test_a_preview_shows_the_largest_foreground_first() -> None:
    classes = np.zeros((20, 8, 8), np.uint8)
    assert preview_slices(classes) == [10, 5, 15]
    classes[8:12, :2, :2] = 1
    classes[9] = 2
    assert preview_slices(classes) == [9, 9, 11]
