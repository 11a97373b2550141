"""Intensities: one outlier costs the others nothing, and what can't be HU is said or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from datasets.raw.layout import Case
from datasets.raw.notes import summarise_notes
from datasets.raw.options import AS_IT_SHOULD_BE, IntensityOptions
from datasets.raw.volume import Volume, read_volume
from datasets.window import volume_window, window_image
from tests.data import save
from utils.errors import UserError

ANY = IntensityOptions(any_intensity=True)
SOFT_TISSUE = (-200.0, 300.0)


def ct(seed: int = 0, shape: tuple[int, int, int] = (6, 32, 32)) -> NDArray[np.float32]:
    """Air around a body of fat and soft tissue with a bone, [Z, Y, X] in HU."""
    _, y, x = np.indices(shape)
    body = np.hypot(y - 16, x - 16)
    image = np.select([np.hypot(y - 26, x - 16) < 2, body < 11, body < 14], [700.0, 50.0, -100.0], -1000.0)
    return (image + np.random.default_rng(seed).normal(0, 10, shape)).astype(np.float32)


def read(
    folder: Path,
    image: NDArray[np.generic],
    reading: IntensityOptions = AS_IT_SHOULD_BE,
    hounsfield: bool = True,
    modality: str | None = None,
) -> Volume:
    path = save(image, folder / "image.nii.gz")
    return read_volume(Case("7", path, None, modality=modality), (), hounsfield=hounsfield, reading=reading)


def restored(volume: Volume) -> NDArray[np.float64]:
    return volume.image * volume.scale + volume.shift


def test_ct_that_is_read_as_mr_is_noted(tmp_path: Path) -> None:
    (note,) = read(tmp_path, ct(), hounsfield=False).notes
    assert note.startswith("looks like CT, but is read as MR")
    assert read(tmp_path, np.abs(ct()), hounsfield=False).notes == []


class TestOutliers:
    @pytest.mark.parametrize("value", [1e9, -3.4e38, 3e38])
    @pytest.mark.parametrize("hounsfield", [True, False])
    def test_one_voxel_costs_the_others_nothing(self, tmp_path: Path, value: float, hounsfield: bool) -> None:
        image = ct()
        image[0, 0, 0] = value
        volume = read(tmp_path, image, hounsfield=hounsfield)
        np.testing.assert_allclose(restored(volume)[1:], image[1:], atol=0.51)
        assert "voxels are beyond" in volume.notes[0] and volume.notes[0].endswith("clipped")
        assert len(np.unique(window_image(volume.image, *volume_window(volume, SOFT_TISSUE)))) > 100

    def test_a_fill_value_beside_nan_where_any_intensity_goes(self, tmp_path: Path) -> None:
        image = ct()
        image[:, :4], image[3, 16, 16] = -3.4e38, np.nan
        volume = read(tmp_path, image, ANY)
        np.testing.assert_allclose(restored(volume)[:3, 4:], image[:3, 4:], atol=0.51)
        assert restored(volume).min() == pytest.approx(-4096, abs=1)

    def test_a_fill_value_around_the_patient(self, tmp_path: Path) -> None:
        image = ct().astype(np.float64)
        image[:, :4] = -1e300
        volume = read(tmp_path, image)
        (note,) = volume.notes
        assert note.startswith("768 voxels are beyond -4096 to 32767 HU (the image reaches from -1e+300 to")
        np.testing.assert_allclose(restored(volume)[:, 4:], image[:, 4:], atol=0.51)
        assert (restored(volume)[:, :4] == -4096).all()

    def test_of_mr_too(self, tmp_path: Path) -> None:
        image = np.random.default_rng(0).gamma(2, 0.1, (6, 32, 32)).astype(np.float32)
        image[2, 3, 4] = 1e9
        volume = read(tmp_path, image, hounsfield=False)
        low, high = volume_window(volume, None)
        assert volume.notes and len(np.unique(window_image(volume.image, low, high))) > 1000

    def test_integers_keep_their_values(self, tmp_path: Path) -> None:
        image = np.rint(ct()).astype(np.int32)
        image[0, 0, 0] = 10**9
        volume = read(tmp_path, image)
        np.testing.assert_array_equal(restored(volume)[1:], image[1:])
        image = np.rint(ct()).astype(np.int16)
        image[0, 0, 0] = -32768
        volume = read(tmp_path, image)
        np.testing.assert_array_equal(volume.image, image)
        assert volume.notes[0].startswith("unusual HU: -32768 to")

    def test_stored_values_that_are_mostly_too_high(self, tmp_path: Path) -> None:
        image = (np.rint(ct()) + 40000).astype(np.uint16)
        with pytest.raises(UserError, match=r"more than 1 % of its voxels are above 32767.*--any_intensity"):
            read(tmp_path, image)
        np.testing.assert_allclose(restored(read(tmp_path, image, ANY)), image, atol=1)

    def test_a_window_between_two_values(self, tmp_path: Path) -> None:
        image = np.random.default_rng(0).uniform(0, 1e9, (3, 8, 8)).astype(np.float32)
        volume = read(tmp_path, image, ANY)
        with pytest.raises(UserError, match=r"image\.nii\.gz: its values are .* apart, too coarse"):
            volume_window(volume, SOFT_TISSUE)


class TestNotFinite:
    @pytest.mark.parametrize("hounsfield", [True, False])
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_is_refused_with_the_count(self, tmp_path: Path, value: float, hounsfield: bool) -> None:
        image = ct()
        image[0, 0, :3] = value
        with pytest.raises(UserError, match=r"3 of its 6144 voxels are NaN or infinite.*--any_intensity"):
            read(tmp_path, image, hounsfield=hounsfield)
        volume = read(tmp_path, image, ANY, hounsfield)
        assert volume.notes[0] == "3 voxels are NaN or infinite: set to the lowest value"
        lowest = image[np.isfinite(image)].min()
        np.testing.assert_allclose(restored(volume)[0, 0, :3], lowest, atol=0.51)

    def test_nothing_finite(self, tmp_path: Path) -> None:
        for reading in (AS_IT_SHOULD_BE, ANY):
            with pytest.raises(UserError, match="holds no voxel that is a finite number"):
                read(tmp_path, np.full((3, 4, 5), np.nan, np.float32), reading)


class TestHounsfieldUnits:
    @pytest.mark.parametrize("seed", range(3))
    def test_a_ct_has_no_note(self, tmp_path: Path, seed: int) -> None:
        assert read(tmp_path, ct(seed)).notes == []
        assert read(tmp_path, np.rint(ct(seed)).astype(np.int16)).notes == []
        assert read(tmp_path, np.rint(ct(seed)).clip(-1024, 3071).astype(np.int16)).notes == []

    @pytest.mark.parametrize("added", [1000, 1024])
    def test_an_offset_is_said_with_the_remedy(self, tmp_path: Path, added: int) -> None:
        shifted = np.rint(ct() + added).clip(0).astype(np.uint16)
        for image in (shifted, shifted.astype(np.float32) + 0.25, shifted[:, 8:24, 8:24]):
            (note,) = read(tmp_path, image).notes
            assert note.startswith("as if 1024 had been added to HU: soft tissue is at 10") and "scl_inter" in note
        assert "air is at" in read(tmp_path, shifted).notes[0]

    @pytest.mark.parametrize("bounds", [(0, 255), (-160, 240), (-200, 300)])
    def test_a_window_is_noted_in_hu(self, tmp_path: Path, bounds: tuple[int, int]) -> None:
        for image in (ct().clip(*bounds), np.rint(ct().clip(*bounds)).astype(np.int16)):
            (note,) = read(tmp_path, image).notes
            assert note.startswith(f"HU from {bounds[0]} to {bounds[1]}, without air, as if cut to a window")

    def test_a_volume_without_air_is_noted(self, tmp_path: Path) -> None:
        inside = ct()[:, 12:28, 12:20]
        assert len(read(tmp_path, inside).notes) == 1
        assert read(tmp_path, inside).notes[0].endswith("without air")

    @pytest.mark.parametrize("dtype", [np.float32, np.uint8])
    def test_zero_to_one_is_refused(self, tmp_path: Path, dtype: type) -> None:
        image = ((ct() + 1100) / 2000).clip(0, 1)
        image = np.rint(image).astype(dtype) if dtype is np.uint8 else image
        with pytest.raises(UserError, match=r"image\.nii\.gz: its intensities are .* can't be HU.*--any_int"):
            read(tmp_path, image)
        np.testing.assert_allclose(restored(read(tmp_path, image, ANY)), image, atol=1e-4)
        assert read(tmp_path, image, hounsfield=False).notes == []

    def test_one_outlier_does_not_hide_it(self, tmp_path: Path) -> None:
        image = ((ct() + 1100) / 2000).clip(0, 1)
        image[0, 0, 0] = 1e9
        with pytest.raises(UserError, match="can't be HU"):
            read(tmp_path, image)

    def test_standardised_values_are_noted(self, tmp_path: Path) -> None:
        (note,) = read(tmp_path, (ct() + 500) / 500).notes
        assert "only, as if normalised" in note

    @pytest.mark.parametrize("modality", ["PET", "MR", "mri", "T2 MRI", "PT (SUV)"])
    def test_a_channel_that_is_called_something_else(self, tmp_path: Path, modality: str) -> None:
        with pytest.raises(UserError, match=rf"image\.nii\.gz: its data set calls it {modality.split()[0]}"):
            read(tmp_path, ct(), modality=modality)
        assert read(tmp_path, ct(), ANY, modality=modality).notes == []
        assert read(tmp_path, np.abs(ct()), hounsfield=False, modality=modality).notes == []

    @pytest.mark.parametrize("modality", ["CT", "ct", "arterial", "CT of PET/CT", None])
    def test_other_channels_are_read(self, tmp_path: Path, modality: str | None) -> None:
        assert read(tmp_path, ct(), modality=modality).notes == []


def test_notes_of_many_cases_are_one_line_each_kind() -> None:
    window = "HU from 0 to {}, without air"
    notes = {str(case): [window.format(255)] for case in range(85)} | {"none": []}
    assert summarise_notes(notes) == ["85 cases (0, 1, 2, ...): HU from 0 to 255, without air"]
    notes = {"a": [window.format(255), "other"], "b": [window.format("-2.5e+03")]}
    assert summarise_notes(notes) == ["2 cases (a, b): in a, HU from 0 to 255, without air", "case a: other"]
