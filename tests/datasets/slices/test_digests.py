"""Slices that are not those that were cut are noticed, in little time."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from datasets.slices.digests import CONTENTS, as_recorded, contents_fingerprint, files_of, slice_digest
from datasets.slices.manifest import Manifest
from datasets.slices.slice_folder import SliceFolder
from tests.data import cut_slices, kits_case
from tests.small import write_bare_archive
from utils.errors import UserError


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for number in range(3):
        kits_case(tmp_path / "raw", number)
    return tmp_path / "raw"


def manifest_of(folder: Path) -> Manifest:
    manifest = Manifest.load(folder)
    assert manifest is not None
    return manifest


def everything(folder: Path) -> str:
    slices = SliceFolder.open(folder, "kits", "tumor")
    return contents_fingerprint(files_of(slices, (), list(slices.cases)))


def change(path: Path, dataset: str = "ct") -> None:
    """One voxel, with name and size as they were."""
    with np.load(path) as content:
        arrays = dict(content)
    arrays[dataset][0, 0] += 1
    size = path.stat().st_size
    np.savez(path, **arrays)
    assert path.stat().st_size == size


def test_a_digest_is_of_the_arrays_alone(tmp_path: Path) -> None:
    arrays = {"ct": np.arange(12, dtype=np.int16).reshape(3, 4), "mask": np.zeros((3, 4), np.uint8)}
    np.savez(tmp_path / "a_0.npz", **arrays)
    np.savez_compressed(tmp_path / "b_0.npz", **dict(reversed(arrays.items())))
    assert slice_digest(tmp_path / "a_0.npz") == slice_digest(tmp_path / "b_0.npz")
    change(tmp_path / "a_0.npz")
    assert slice_digest(tmp_path / "a_0.npz") != slice_digest(tmp_path / "b_0.npz")


def test_every_written_slice_has_its_digest(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cut_slices(raw, out, val_fraction=0.34)
    first = {name: dict(case.digests) for name, case in manifest_of(out).cases.items()}
    for name, case in manifest_of(out).cases.items():
        assert case.digests.keys() == case.written_slices
        assert all(slice_digest(out / f"{name}_{index}.npz") == digest for index, digest in case.digests.items())
    cut_slices(raw, out, val_fraction=0.34, slices="all")
    for name, case in manifest_of(out).cases.items():
        assert len(case.digests) == 8 and case.digests.items() >= first[name].items()
    cut_slices(raw, out, val_fraction=0.34, negatives=0.0)
    assert all(case.digests.keys() == case.written_slices for case in manifest_of(out).cases.values())


def test_slices_of_an_earlier_version_get_digests_when_slicemaker_runs_again(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cut_slices(raw, out)
    path, before = out / "cases.json", manifest_of(out)
    content = json.loads(path.read_text())
    for case in content["cases"].values():
        del case["digests"]
    path.write_text(json.dumps(content))
    assert everything(out) and not any(case.digests for case in manifest_of(out).cases.values())
    assert cut_slices(raw, out).new == 0
    assert manifest_of(out).cases == before.cases


@pytest.mark.parametrize("array", ["ct", "mask"])
def test_a_slice_that_is_not_the_one_that_was_cut_is_named(raw: Path, tmp_path: Path, array: str) -> None:
    out = tmp_path / "out"
    cut_slices(raw, out, slices="all")
    everything(out)
    change(out / "00001_3.npz", array)
    with pytest.raises(
        UserError, match=r"00001_3\.npz: is not the slice that cases\.json lists .* run SliceMaker again"
    ):
        everything(out)


def test_slices_cut_again_have_another_fingerprint(raw: Path, tmp_path: Path) -> None:
    """Under the same names, from another image: the manifest agrees with them."""
    cut_slices(raw, tmp_path / "a")
    before = everything(tmp_path / "a")
    cut_slices(raw, tmp_path / "b")
    assert everything(tmp_path / "b") == before
    (raw / "case_00001" / "imaging.nii.gz").write_bytes((raw / "case_00002" / "imaging.nii.gz").read_bytes())
    cut_slices(raw, tmp_path / "a")
    assert everything(tmp_path / "a") != before


def test_the_published_archive_has_a_fingerprint_too(tmp_path: Path) -> None:
    archive = write_bare_archive(tmp_path / "archive")
    before = everything(archive)
    with np.load(archive / "00001_2.npz") as content:
        np.savez_compressed(archive / "00001_2.npz", ct=content["ct"] + 1, mask=content["mask"])
    assert everything(archive) != before
    (archive / "00001_2.npz").write_bytes(b"none")
    with pytest.raises(UserError, match=r"00001_2\.npz: is not a slice file"):
        everything(archive)


def test_a_check_reads_no_slice(tmp_path: Path) -> None:
    """Twenty slices of 8 MB, in far less time than reading them takes."""
    ct, mask = np.zeros((2000, 2000), np.int16), np.zeros((2000, 2000), np.uint8)
    np.savez(tmp_path / "0_0.npz", ct=ct, mask=mask)
    started = time.perf_counter()
    for _ in range(20):
        slice_digest(tmp_path / "0_0.npz")
    assert time.perf_counter() - started < 0.2


def test_what_earlier_versions_did_not_record_is_not_compared() -> None:
    assert as_recorded({"lr": 1}, {CONTENTS: "x", "lr": 2}) == {CONTENTS: "x", "lr": 1}
    assert as_recorded({CONTENTS: "y"}, {CONTENTS: "x"}) == {CONTENTS: "y"}
