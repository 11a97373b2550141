"""Folders of slices: those that SliceMaker writes, and the published preprocessed archive."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from datasets.raw import open_layout
from datasets.slices.manifest import from_ranges, to_ranges
from datasets.slices.slice_folder import SliceFolder
from tests.data import ct_and_label, cut_slices, kits_case
from tests.small import write_bare_archive
from utils.errors import UserError


def cut(root: Path, **options: Any) -> Path:
    """Three KiTS cases cut into slices."""
    for number in range(3):
        kits_case(root / "raw", number)
    cut_slices(root / "raw", root / "slices", **{"val_fraction": 0.3, **options})
    return root / "slices"


def publish(folder: Path, wide: bool = False, dtype: str = "U") -> Path:
    """The published form: a list and npz files with float64 `ct` and int8 `mask`, nothing else."""
    folder.mkdir()
    image, label = ct_and_label()
    for index, (ct, mask) in enumerate(zip(image, label, strict=True)):
        mask = mask.repeat(2, axis=1) if wide else mask
        np.savez_compressed(folder / f"00160_{index}.npz", ct=ct.astype(float), mask=mask.astype(np.int8))
    np.save(folder / "kits_tumor_slices.npy", np.array(["00160_1.npz", "00160_2.npz"], dtype))
    return folder


class TestCut:
    def test_holds_cases_lists_and_geometry(self, tmp_path: Path) -> None:
        slices = SliceFolder.open(cut(tmp_path), "kits", "Tumor")
        assert slices.label_map == open_layout("kits", tmp_path).label_map("tumor")
        assert list(slices.cases) == ["00000", "00001", "00002"]
        (val,) = slices.val_cases
        assert slices.cases[val] == [f"{val}_{index}.npz" for index in range(8)]
        assert [slices.complete(case) for case in slices.cases] == [case == val for case in slices.cases]
        assert slices.spacing(val) == pytest.approx((3.0, 0.8, 0.7))
        assert not any(name.startswith(val) for name in slices.train)
        assert set(slices.train) == {name for case, names in slices.cases.items() if case != val for name in names}

    def test_read_gives_the_source_pixels(self, tmp_path: Path) -> None:
        slices = SliceFolder.open(cut(tmp_path), "kits", "tumor")
        for case in slices.cases:
            image, label = ct_and_label(seed=int(case))
            for name in slices.cases[case]:
                # KiTS is stored from superior to inferior, so its last slice is the first here.
                position = 7 - int(name.removesuffix(".npz").split("_")[1])
                ct, mask = slices.read(name)
                assert (ct.dtype, mask.dtype) == (np.int16, np.uint8)
                np.testing.assert_array_equal(ct, image[position])
                np.testing.assert_array_equal(mask, label[position])

    def test_read_case_stacks_by_slice_number(self, tmp_path: Path) -> None:
        slices = SliceFolder.open(cut(tmp_path), "kits", "tumor")
        (val,) = slices.val_cases
        ct, mask = slices.read_case(val)
        image, label = ct_and_label(seed=int(val))
        np.testing.assert_array_equal(ct, image[::-1])
        np.testing.assert_array_equal(mask, label[::-1])

    def test_windows(self, tmp_path: Path) -> None:
        slices = SliceFolder.open(cut(tmp_path), "kits", "tumor")
        assert slices.window("00000") == (-200, 300)
        assert slices.window("00000", (-10, 20)) == (-10, 20)
        with pytest.raises(UserError, match="--window 5 -5"):
            slices.window("00000", (5, -5))

    def test_without_a_window_the_percentiles_of_the_volume_count(self, tmp_path: Path) -> None:
        folder = cut(tmp_path)
        slices = SliceFolder.open(folder, "kits", "tumor")
        assert slices.manifest is not None
        slices.manifest.window = None
        image, _ = ct_and_label(seed=1)
        assert slices.window("00001") == pytest.approx(np.percentile(image, [0.5, 99.5]))

    def test_finds_train_and_test_below_the_folder(self, tmp_path: Path) -> None:
        folder = cut(tmp_path, test_fraction=0.3)
        train, test = (SliceFolder.open(folder, "kits", "tumor", split) for split in ("train", "test"))
        assert (train.folder, test.folder) == (folder / "train", folder / "test")
        assert not train.cases.keys() & test.cases.keys()
        (case,) = test.cases
        assert test.complete(case)
        assert test.train == [f"{case}_5.npz", f"{case}_6.npz"]

    def test_other_tasks_need_their_list_only_to_train(self, tmp_path: Path) -> None:
        slices = SliceFolder.open(cut(tmp_path), "kits", "organ")
        assert slices.label_map.name == "organ" and slices.cases
        with pytest.raises(UserError, match=r"kits_organ_slices\.npy: no such list.*--dataset kits --task organ"):
            _ = slices.train

    @pytest.mark.parametrize("named", ["", "train"])
    def test_the_command_for_another_task_keeps_the_split(self, tmp_path: Path, named: str) -> None:
        folder = cut(tmp_path, test_fraction=0.3)
        with pytest.raises(UserError, match=f"--outpath {folder} --dataset kits --task organ"):
            _ = SliceFolder.open(folder / named, "kits", "organ").train

    def test_missing_and_damaged_files_are_named(self, tmp_path: Path) -> None:
        folder = cut(tmp_path)
        with pytest.raises(UserError, match=r"SliceMaker\.py --inpath RAW --outpath .*empty --dataset kits --task all"):
            SliceFolder.open(tmp_path / "empty", "kits", "all")
        with pytest.raises(UserError, match="holds slices of kits"):
            SliceFolder.open(folder, "lits", "tumor")
        slices = SliceFolder.open(folder, "kits", "tumor")
        name = slices.train[0]
        (folder / name).write_bytes(b"PK not really")
        with pytest.raises(UserError, match=f"{name}: is not a slice file"):
            slices.read(name)
        (folder / name).unlink()
        with pytest.raises(UserError, match=f"{name}: is missing"):
            slices.read(name)
        with pytest.raises(UserError, match=f"{name}: is on the list"):
            _ = SliceFolder.open(folder, "kits", "tumor").train
        (folder / "cases.json").write_text('{"dataset": "kits"}')
        with pytest.raises(UserError, match=r"cases\.json: is damaged"):
            SliceFolder.open(folder, "kits", "tumor")


class TestPublished:
    def test_dataset_names_are_forgiving(self, tmp_path: Path) -> None:
        assert SliceFolder.open(publish(tmp_path / "slices"), "KiTS", "TUMOR").dataset == "kits"

    def test_loads_as_it_is(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        slices = SliceFolder.open(publish(tmp_path / "slices"), "kits", "tumor")
        image, label = ct_and_label()
        ct, mask = slices.read_case("00160")
        np.testing.assert_array_equal(ct, image)
        np.testing.assert_array_equal(mask, label)
        assert (ct.dtype, mask.dtype) == (np.int16, np.uint8)
        assert slices.train == ["00160_1.npz", "00160_2.npz"]
        assert slices.val_cases == [] and slices.spacing("00160") is None
        assert slices.complete("00160") and slices.window("00160") == (-200, 300)
        assert capsys.readouterr().err == ""

    def test_masks_of_another_shape_are_resized_with_one_notice(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        slices = SliceFolder.open(publish(tmp_path / "slices", wide=True), "kits", "tumor")
        _, mask = slices.read_case("00160")
        np.testing.assert_array_equal(mask, ct_and_label()[1])
        assert capsys.readouterr().err.count("00160") == 1

    def test_pickled_lists_are_refused(self, tmp_path: Path) -> None:
        slices = SliceFolder.open(publish(tmp_path / "slices", dtype="O"), "kits", "tumor")
        with pytest.raises(UserError, match="is not a list of slice names"):
            _ = slices.train


def test_ranges() -> None:
    assert to_ranges([9, 3, 7, 8]) == "3 7-9"
    assert from_ranges("3 7-9") == [3, 7, 8, 9]
    assert (to_ranges([]), from_ranges("")) == ("", [])


@pytest.mark.parametrize(
    ("ct", "says"),
    [
        (np.zeros((2, 4, 4), np.int16), "shape (2, 4, 4)"),
        (np.zeros((0, 4), np.int16), "shape (0, 4)"),
        (np.full((4, 4), "a"), "type <U1"),
        (np.full((4, 4), np.nan), "16 values that are not finite"),
        (np.zeros((4, 4), complex), "type complex128"),
    ],
)
def test_a_slice_is_a_picture_of_finite_numbers(tmp_path: Path, ct: NDArray[Any], says: str) -> None:
    slices = SliceFolder.open(write_bare_archive(tmp_path), "kits", "tumor")
    np.savez(tmp_path / "00000_0.npz", ct=ct, mask=np.zeros((4, 4), np.uint8))
    with pytest.raises(UserError, match=rf"00000_0\.npz: is not a slice file \(ct has .*{re.escape(says)}"):
        slices.read("00000_0.npz")
