"""Frame: the published crop for the network's input; the way back neither loses nor moves anything."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.frame import Frame
from datasets.raw.layout import Case
from datasets.raw.volume import read_volume, write_labels
from tests.data import ORIENTATIONS, save
from utils.errors import UserError

SHAPES = [(256, 256), (512, 512), (512, 796), (216, 256)]


def random_labels(shape: tuple[int, int], slices: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 3, (slices, *shape)).astype(np.uint8))


def there_and_back(frame: Frame, labels: Tensor) -> Tensor:
    """The result of a perfect network, whose probabilities are the framed labels, one-hot."""
    framed = frame.labels(labels).long()
    probabilities = F.one_hot(framed, 3).permute(0, 3, 1, 2).float()
    return frame.back(probabilities, (labels.shape[1], labels.shape[2])).argmax(1).to(torch.uint8)


@pytest.mark.parametrize("shape", SHAPES)
def test_labels_survive_where_the_crop_holds_the_slice(shape: tuple[int, int]) -> None:
    labels = random_labels(shape)
    for crop in (0, 800, 1024):
        assert torch.equal(there_and_back(Frame(0, crop), labels), labels)


@pytest.mark.parametrize("shape", [(256, 256), (512, 512), (216, 256)])
@pytest.mark.parametrize("crop", [0, 640])
def test_labels_survive_an_enlargement(shape: tuple[int, int], crop: int) -> None:
    labels = random_labels(shape)
    assert torch.equal(there_and_back(Frame(512, crop), labels), labels)


@pytest.mark.parametrize(
    ("shape", "orientations"),
    [((54, 64), ORIENTATIONS), *((shape, ["IPL", "LPS", "RAS", "ASR"]) for shape in SHAPES[:3])],
)
def test_files_survive_in_every_orientation(tmp_path: Path, shape: tuple[int, int], orientations: list[str]) -> None:
    labels = random_labels(shape, 2).numpy()
    for codes in orientations:
        path = save(labels, tmp_path / "label.nii", codes)
        volume = read_volume(Case("1", save(labels, tmp_path / "image.nii", codes), path), (0, 1, 2))
        assert volume.label is not None
        result = there_and_back(Frame(0, max(shape) + 20), torch.from_numpy(volume.label)).numpy()
        write_labels(tmp_path / "result.nii", result, volume)
        written, source = nib.load(tmp_path / "result.nii"), nib.load(path)
        np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(source.dataobj))
        np.testing.assert_array_equal(written.affine, source.affine)


def test_blobs_survive_the_shrinking_of_a_wide_slice() -> None:
    y, x = torch.meshgrid(torch.arange(512.0), torch.arange(796.0), indexing="ij")
    organ = ((y - 240) / 60) ** 2 + ((x - 380) / 90) ** 2 < 1
    tumor = ((y - 250) / 20) ** 2 + ((x - 400) / 25) ** 2 < 1
    labels = (organ.to(torch.uint8) + tumor.to(torch.uint8))[None]
    result = there_and_back(Frame(), labels)
    for label in (1, 2):
        predicted, reference = result == label, labels == label
        assert 2 * (predicted & reference).sum() / (predicted.sum() + reference.sum()) >= 0.98


def test_the_published_crop() -> None:
    labels = random_labels((512, 512), 2)
    image = labels.float() - 1
    assert torch.equal(Frame().labels(labels), labels[:, 50:434, 60:444])
    assert torch.equal(Frame().image(image), image[:, 50:434, 60:444])
    assert torch.equal(Frame(0).labels(labels), labels[:, 50:434, 60:444])


def test_outside_the_crop_is_background_and_counted_as_lost() -> None:
    labels = torch.ones(2, 512, 512, dtype=torch.uint8)
    result = there_and_back(Frame(), labels)
    assert int(result.sum()) == 2 * 384 * 384
    assert int(result[:, 50:434, 60:444].sum()) == 2 * 384 * 384
    assert Frame().lost(labels == 1) == 2 * (512 * 512 - 384 * 384)
    assert Frame(256).lost(labels == 1) == Frame().lost(labels == 1)
    assert Frame(512, 0).lost(labels == 1) == 0
    assert Frame(0, 1024).lost(labels == 1) == 0


def test_crop_defaults_and_other_sizes() -> None:
    image = torch.zeros(1, 512, 512)
    sizes = {(512, None): 384, (256, None): 192, (0, None): 384, (512, 0): 512, (512, 320): 320, (512, 640): 640}
    for (size, crop), side in sizes.items():
        assert Frame(size, crop).image(image).shape == (1, side, side)
    labels = random_labels((512, 512))
    assert torch.equal(Frame(512, 320).labels(labels), labels[:, 82:402, 92:412])


def test_no_padding_where_the_slice_could_fill_the_crop() -> None:
    assert bool((Frame(0).image(torch.zeros(1, 390, 400)) == 0).all())


def test_padding_is_air_in_the_image_and_background_in_the_mask() -> None:
    image, labels = torch.ones(1, 200, 600), torch.ones(1, 200, 600, dtype=torch.uint8)
    framed, mask = Frame(0).image(image), Frame(0).labels(labels)
    assert torch.equal(framed, mask * 2.0 - 1)
    assert int(mask.sum()) == 200 * 384
    assert float(Frame(0).image(image, pad=0.5).min()) == 0.5


def test_shrinking_averages_and_the_mean_stays() -> None:
    board = (torch.arange(512)[:, None] + torch.arange(512)) % 2 * 2.0 - 1
    assert float(Frame(128, 0).image(board[None]).abs()[:, 2:-2, 2:-2].max()) < 0.05


def test_image_and_mask_move_together() -> None:
    y, x = torch.meshgrid(torch.arange(300), torch.arange(420), indexing="ij")
    labels = (((y - 150) ** 2 + (x - 210) ** 2) < 70**2).to(torch.uint8)[None]
    image = Frame(512).image(labels * 2.0 - 1) > 0
    mask = Frame(512).labels(labels) > 0
    assert float((image != mask).sum() / mask.sum()) < 0.01


@pytest.mark.parametrize(("size", "crop"), [(-1, None), (5, None), (512, -3), (512, 7), (100000, None)])
def test_nonsense_sizes_are_refused(size: int, crop: int | None) -> None:
    with pytest.raises(UserError, match="must be 0 or from 16 to 4096"):
        Frame(size, crop)


def test_survives_as_a_dict() -> None:
    for frame in (Frame(), Frame(0, 0), Frame(256, 224)):
        assert Frame.from_dict(frame.to_dict()) == frame


@pytest.mark.parametrize("frame", [Frame(), Frame(128, 0), Frame(128, 96), Frame(64, 96), Frame(0), Frame(0, 0)])
def test_the_side_is_that_of_the_network_s_input(frame: Frame) -> None:
    image = torch.zeros(1, 70, 70)
    assert frame.image(image).shape[-2:] == (frame.side or 70,) * 2
