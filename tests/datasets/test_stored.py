"""What a batch carries for a teacher that takes stored values: they lie as the image does, and are never clipped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.augment import AUGMENTS, get_augment
from datasets.frame import Frame
from datasets.loader import SliceDataset, TrainingLoader
from datasets.slices.manifest import MANIFEST
from datasets.slices.slice_folder import SliceFolder
from datasets.slices.unlabelled import unlabelled_slices
from tests.data import cut_all, cut_slices, kits_case, loose_ct
from utils.batch import UNLABELLED
from utils.errors import UserError
from utils.seeding import generator
from utils.stored_as import StoredAs

ORIGIN = StoredAs((3.0, 0.8, 0.7), 1.0, 0.0, "IPL")
"""Of `tests.data.oriented`."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stored")
    for number in range(3):
        kits_case(root / "raw", number)
    cut_slices(root / "raw", root / "slices", slices="all")
    cut_all(loose_ct(root / "loose", "x", "y"), root / "without")
    return root


def opened(folder: Path) -> SliceFolder:
    return SliceFolder.open(folder / "slices", "kits", "tumor")


def near(found: StoredAs, expected: StoredAs) -> bool:
    return found == expected._replace(spacing=pytest.approx(expected.spacing))


def test_at_its_own_size_a_slice_is_as_the_file_has_it(folder: Path) -> None:
    slices = opened(folder)
    name = slices.train[0]
    _, _, _, more = SliceDataset(slices, [name], Frame(0, 0), with_stored=True)[0, 0]
    ct, _ = slices.read(name)
    assert more["stored"].values.dtype == torch.int16
    assert np.array_equal(more["stored"].values[0], ct) and near(more["stored"].origins[0], ORIGIN)
    assert ct.min() < -900 and ct.max() > 900  # beyond the window


@pytest.mark.parametrize("augment", AUGMENTS)
def test_image_and_mask_are_the_same_with_it_and_without(folder: Path, augment: str) -> None:
    slices = opened(folder)
    plain, stored = (
        SliceDataset(slices, slices.train, Frame(24, 0), augment, seed=3, with_stored=more) for more in (False, True)
    )
    for epoch in range(3):
        for i in range(len(plain)):
            image, mask, case = plain[epoch, i]
            again, same_mask, same_case, _ = stored[epoch, i]
            assert torch.equal(image, again) and torch.equal(mask, same_mask) and case == same_case


@pytest.mark.parametrize("augment", AUGMENTS)
def test_it_moves_as_the_mask_does_and_keeps_its_values(augment: str) -> None:
    mask = torch.zeros(40, 40, dtype=torch.uint8)
    mask[6:16, 20:36] = 1
    for i in range(30):
        values = 3000.0 * mask[None] - 1000
        image, moved = get_augment(augment)(torch.cat((mask[None] * 2.0 - 1, values)), mask, generator(0, i))
        assert image.shape == (2, 40, 40)
        assert ((image[1] > 500) == (moved > 0)).float().mean() > 0.97
        assert image[1].min() >= -1000.1 and image[1].max() <= 2000.1
        # Where the map is as far inside as out of reach of any interpolation, gamma and noise would show.
        assert ((image[1, moved == 0] + 1000).abs() < 0.5).float().mean() > 0.85


def test_the_frames_pixels_have_the_spacing_that_resizing_leaves(folder: Path) -> None:
    slices = opened(folder)
    dataset = SliceDataset(slices, slices.train, Frame(40, 16), with_stored=True)
    image, _, _, more = dataset[0, 0]
    assert more["stored"].values.shape == image.shape == (1, 16, 16)
    # 20 rows and 24 columns become 40 of each.
    assert near(more["stored"].origins[0], ORIGIN._replace(spacing=(3.0, 0.4, 0.42)))


def test_padding_has_the_lowest_value_of_the_slice(folder: Path) -> None:
    slices = opened(folder)
    _, _, _, more = SliceDataset(slices, slices.train, Frame(0, 32), with_stored=True)[0, 0]
    ct, _ = slices.read(slices.train[0])
    assert more["stored"].values.shape == (1, 32, 32) and (more["stored"].values[0, 0] == int(ct.min())).all()


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_carry_it_for_slices_with_and_without_masks(folder: Path, workers: int) -> None:
    slices = opened(folder)
    without = unlabelled_slices([folder / "without"], slices, slices.train, set())
    dataset = SliceDataset(slices, slices.train, Frame(24, 0), "paper", unlabelled=without, with_stored=True)
    batch = next(iter(TrainingLoader(dataset, 3, workers, unlabelled_per_batch=2))).to(torch.device("cpu"))
    assert batch.stored is not None and batch.stored.values.shape == (5, 1, 24, 24)
    assert batch.mask[3:].eq(UNLABELLED).all()
    # The loose files are stored L, P, S.
    assert [origin.orientation for origin in batch.stored.origins] == ["IPL"] * 3 + ["LPS"] * 2


def test_slices_that_were_cut_before_it_was_recorded_are_refused(folder: Path, tmp_path: Path) -> None:
    cut_slices(folder / "raw", tmp_path / "slices", slices="all")
    path = tmp_path / "slices" / MANIFEST
    content = json.loads(path.read_text())
    for entry in content["cases"].values():
        assert entry.pop("orientation") == "IPL"
    path.write_text(json.dumps(content))
    slices = SliceFolder.open(tmp_path / "slices", "kits", "tumor")
    assert len(SliceDataset(slices, slices.train, Frame(24, 0))[0, 0]) == 3
    with pytest.raises(UserError, match=r"case 0000.*do not say how their source lies.*cut the raw cases again"):
        SliceDataset(slices, slices.train, Frame(24, 0), with_stored=True)[0, 0]
