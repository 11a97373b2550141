"""Class probabilities of a case from files: every stored orientation, both formats, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from datasets.raw.layout import Case
from datasets.raw.probabilities import file_of_case, hard_labels, open_probabilities, probability_files
from datasets.raw.volume import Volume, read_volume
from tests.data import ORIENTATIONS, oriented, save, voxels
from utils.errors import UserError

SHAPE = (3, 4, 5)


def make_probabilities(classes: int = 3, shape: tuple[int, int, int] = SHAPE) -> NDArray[np.float32]:
    """[C, Z, Y, X], another value at each place."""
    drawn = np.random.default_rng(0).random((classes, *shape)).astype(np.float32)
    return drawn / drawn.sum(axis=0)


def as_nnunet(probabilities: NDArray[Any], codes: str) -> NDArray[Any]:
    """[C, z, y, x] of an image that is stored along `codes`: its stored axes, the last one first."""
    return np.stack([np.asanyarray(oriented(each, codes).dataobj).T for each in probabilities])


def image(folder: Path, codes: str = "IPL") -> Volume:
    path = save(np.zeros(SHAPE, np.int16), folder / "image.nii.gz", codes)
    return read_volume(Case("image", path, None), (), hounsfield=None)


def read(path: Path, volume: Volume) -> NDArray[np.float32]:
    with open_probabilities(path, volume) as (count, channels):
        read = np.stack(list(channels))
    assert len(read) == count and read.dtype == np.float32
    return read


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_every_stored_orientation_is_brought_to_the_image_s_axes(tmp_path: Path, codes: str) -> None:
    probabilities, volume = make_probabilities(), image(tmp_path, codes)
    stored = as_nnunet(probabilities, codes)
    assert stored.shape[1:] == voxels(tmp_path / "image.nii.gz").shape[::-1]
    np.savez_compressed(tmp_path / "image.npz", probabilities=stored)
    np.testing.assert_array_equal(read(tmp_path / "image.npz", volume), probabilities)
    nifti = nib.Nifti1Image(stored.T, volume.affine)
    nib.save(nifti, tmp_path / "image_probabilities.nii.gz")
    np.testing.assert_array_equal(read(tmp_path / "image_probabilities.nii.gz", volume), probabilities)


def test_nifti_is_turned_by_its_own_header(tmp_path: Path) -> None:
    probabilities, volume = make_probabilities(), image(tmp_path, "IPL")
    turned = [oriented(each, "RAS") for each in probabilities]
    path = tmp_path / "turned.nii"
    nib.save(
        nib.Nifti1Image(np.stack([np.asanyarray(each.dataobj) for each in turned], axis=-1), turned[0].affine), path
    )
    np.testing.assert_array_equal(read(path, volume), probabilities)
    moved = turned[0].affine + np.array([[0, 0, 0, 1.0], [0] * 4, [0] * 4, [0] * 4])
    nib.save(nib.Nifti1Image(np.zeros((*turned[0].shape, 3), np.float32), moved), path)
    with pytest.raises(UserError, match=r"turned.nii: lies on another grid than .*image.nii.gz"):
        read(path, volume)


def test_other_types_and_orders_of_bytes_are_read(tmp_path: Path) -> None:
    probabilities, volume = make_probabilities(), image(tmp_path)
    stored = as_nnunet(probabilities, "IPL")
    for kind in (np.float16, np.float64, ">f4"):
        np.savez(tmp_path / "a.npz", probabilities=np.asfortranarray(stored.astype(kind)))
        np.testing.assert_allclose(read(tmp_path / "a.npz", volume), probabilities, atol=1e-3)


def test_what_holds_no_probabilities_of_this_image_is_refused(tmp_path: Path) -> None:
    probabilities, volume = make_probabilities(), image(tmp_path)
    stored = as_nnunet(probabilities, "IPL")
    wrong = {
        "has shape .* but .*image.nii.gz has": stored[:, :, :, 1:],
        "holds values from .* no probabilities": stored * 9 - 4,
        "not probabilities \\[C, z, y, x\\]": stored[0],
        "holds int64": stored.astype(int),
        "is one volume": stored[:1],
        "cannot be read|holds object": np.array([{}], dtype=object),
    }
    for says, array in wrong.items():
        np.savez(tmp_path / "a.npz", probabilities=array)
        with pytest.raises(UserError, match=f"a.npz: .*{says}"):
            read(tmp_path / "a.npz", volume)
    np.savez(tmp_path / "a.npz", softmax=stored)
    with pytest.raises(UserError, match="holds no array `probabilities`; write it again with --save_probabilities"):
        read(tmp_path / "a.npz", volume)
    nib.save(nib.Nifti1Image(stored[0].T, volume.affine), tmp_path / "labels.nii")
    with pytest.raises(UserError, match="is one volume; expected a probability for each class"):
        read(tmp_path / "labels.nii", volume)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    volume = image(tmp_path)
    np.savez(tmp_path / "a.npz", probabilities=as_nnunet(make_probabilities(), "IPL"))
    whole = (tmp_path / "a.npz").read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    for content in (whole[: len(whole) // 2], b"", bytes(changed)):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"a.npz: (cannot be read as probabilities|holds values)"):
            read(tmp_path / "a.npz", volume)


def test_the_file_of_a_case_is_found_by_any_layout_s_name(tmp_path: Path) -> None:
    for name in ("case_00007.npz", "case_00007.nii.gz", "b_probabilities.nii.gz", "b.nii.gz", "c.pkl", ".d.npz"):
        (tmp_path / name).touch()
    files = probability_files(tmp_path)
    assert {name: path.name for name, path in files.items()} == {
        "case_00007": "case_00007.npz",
        "b": "b_probabilities.nii.gz",
    }
    assert file_of_case("00007", files) == tmp_path / "case_00007.npz"
    assert file_of_case("00008", files) is None


def test_the_most_probable_class_is_that_of_argmax() -> None:
    probabilities = make_probabilities(4)
    probabilities[:, 0] = 0.25
    np.testing.assert_array_equal(hard_labels(probabilities), probabilities.argmax(axis=0))
