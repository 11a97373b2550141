"""The fast ways through memory give what the plain ones do, whatever the order of the axes."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from datasets.raw import gzipped, nifti, open_layout
from datasets.raw.intensities import level_counts
from datasets.raw.layout import Case
from datasets.raw.nifti import Orientation, open_nifti
from datasets.raw.turning import copy_turned, pick_slices, planes_in_memory
from datasets.raw.volume import read_volume
from tests.data import KITS, ORIENTATIONS, ct_and_label, cut_slices, kits_case, save
from tests.paths import ROOT
from utils.errors import UserError

SHAPE = (70, 6, 9)


def in_order_of(codes: str, volume: NDArray[Any]) -> NDArray[Any]:
    """The volume as a view of an array that lies in memory as a file of this orientation."""
    letters = {"S": (0, 1), "I": (0, -1), "P": (1, 1), "A": (1, -1), "L": (2, 1), "R": (2, -1)}
    axes, directions = zip(*(letters[code] for code in codes), strict=True)
    orientation = Orientation(axes, directions)
    return orientation.array_view(np.asfortranarray(orientation.file_view(volume)))


@pytest.mark.parametrize("codes", ORIENTATIONS)
class TestTurnedVolumes:
    @pytest.fixture
    def volume(self) -> NDArray[np.int16]:
        return np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)

    @pytest.mark.parametrize("sparse", [False, True])
    def test_copying_keeps_every_voxel_in_its_place(self, codes: str, volume: NDArray[np.int16], sparse: bool) -> None:
        if sparse:
            volume[volume < 900] = 0
        target = np.zeros(SHAPE, np.int16)
        copy_turned(target, in_order_of(codes, volume), sparse=sparse)
        assert np.array_equal(target, volume)

    def test_slices_are_those_of_the_array(self, codes: str, volume: NDArray[np.int16]) -> None:
        turned = in_order_of(codes, volume)
        for wanted in ([], [5], [0, 3, 69], list(range(70))):  # The last is more than one block.
            picked = list(pick_slices(turned, wanted))
            assert all(plane.flags.c_contiguous for plane in picked)
            assert np.array_equal(np.array(picked).reshape(-1, *SHAPE[1:]), volume[wanted])

    def test_counts_are_those_of_the_array(self, codes: str, volume: NDArray[np.int16]) -> None:
        turned = in_order_of(codes, volume)
        assert sum(plane.size for plane in planes_in_memory(turned)) == volume.size
        expected = np.bincount(volume.ravel().astype(int) + 32768, minlength=65536)
        assert np.array_equal(level_counts(turned), expected)
        assert np.array_equal(level_counts(volume), expected)

    def test_a_volume_as_stored_is_the_same_volume(
        self, codes: str, volume: NDArray[np.int16], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("SLAB_BYTES", "TURNED_SLAB_BYTES"):
            monkeypatch.setattr(nifti, name, 1000)  # Several of each.
        case = Case("a", save(volume, tmp_path / "a.nii.gz", codes), None)
        plain, stored = (read_volume(case, (0,), hounsfield=True, as_stored=way) for way in (False, True))
        assert plain.image.flags.c_contiguous and np.array_equal(plain.image, volume)
        assert np.array_equal(stored.image, volume)
        assert plain.notes == stored.notes and np.array_equal(plain.slices, stored.slices)


@pytest.mark.parametrize("slices", ["target", "all"])
def test_slices_of_a_case_stored_with_z_first_are_those_of_one_with_z_last(tmp_path: Path, slices: str) -> None:
    image, label = ct_and_label((70, 20, 24))
    for codes in (KITS, "RAS"):
        save(image, tmp_path / codes / "case_00000" / "imaging.nii.gz", codes)
        save(label, tmp_path / codes / "case_00000" / "segmentation.nii.gz", codes)
        cut_slices(tmp_path / codes, tmp_path / f"{codes}_out", task="tumor", slices=slices, val_fraction=0)
    written = sorted((tmp_path / f"{KITS}_out").glob("*.npz"))
    assert len(written) == (70 if slices == "all" else 2 + round(0.1 * 68))
    for path in written:
        index = int(path.stem.split("_")[1])
        with np.load(path, allow_pickle=False) as content:
            # A file that is stored from superior to inferior numbers its slices from there.
            assert np.array_equal(content["ct"], image[69 - index]) and content["ct"].flags.c_contiguous
            assert np.array_equal(content["mask"], label[69 - index])


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_a_cyst_is_found_in_any_type_of_voxels(tmp_path: Path, kind: type) -> None:
    case = kits_case(tmp_path, 0)
    _, label = ct_and_label()
    for cyst in (False, True):
        label[4, 7, 7] = 3 if cyst else 1
        save(label.astype(kind), case / "segmentation.nii.gz")
        assert ("cyst" in open_layout("kits", tmp_path).tasks) == cyst


class TestGzip:
    """By either library the same, of several members as of one."""

    @pytest.fixture(params=["isal", "zlib"])
    def library(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
        if request.param == "zlib":
            monkeypatch.setattr(gzipped, "igzip", None)
            gzipped._note_zlib.cache_clear()
        return str(request.param)

    def test_members_are_read_one_after_another(
        self, library: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        image, _ = ct_and_label()
        path = save(image, tmp_path / "a.nii.gz")
        content = gzip.decompress(path.read_bytes())
        path.write_bytes(b"".join(gzip.compress(content[start : start + 3000]) for start in range(0, 10**4, 3000)))
        for _ in range(2):
            assert np.array_equal(read_volume(Case("a", path, None), (0,)).image, image)
        assert capsys.readouterr().err.count("note: isal is not installed") == (library == "zlib")

    @pytest.mark.parametrize("spoil", [lambda data: data[:-900], lambda data: data[:-8] + bytes(8)])
    def test_damage_is_one_line(self, library: str, tmp_path: Path, spoil: Any) -> None:
        path = save(ct_and_label()[0], tmp_path / "a.nii.gz")
        path.write_bytes(spoil(path.read_bytes()))
        with pytest.raises(UserError, match=r"a\.nii\.gz: cannot be read as NIfTI"), open_nifti(path) as source:
            source.load(np.int16, Orientation.of(source.affine))

    def test_what_is_written_is_read_again(self, library: str, tmp_path: Path) -> None:
        with (tmp_path / "a.gz").open("wb") as file, gzipped.compressing(file) as stream:
            stream.write(b"abc" * 1000)
        assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == b"abc" * 1000
        with gzipped.open_gzip(tmp_path / "a.gz") as stream:
            assert stream.read() == b"abc" * 1000


def test_highdicom_finds_pydicom_after_nibabel_did_not() -> None:
    code = "import datasets.raw.nifti, datasets.raw.dicom_volume, pydicom; assert pydicom.dcmread"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
