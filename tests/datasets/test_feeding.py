"""The ways in which slices come to a device: whichever it is, and whatever is in memory, the batches are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.augment import AUGMENTS
from datasets.cache import SliceCache, cache_bytes
from datasets.frame import Frame
from datasets.framed import LEVELS, framed_image, windowed
from datasets.loader import CPU, SliceDataset, TrainingLoader
from datasets.slices.slice_folder import SliceFolder
from datasets.slices.unlabelled import UnlabelledSlices, unlabelled_slices
from datasets.window import window_image
from engine.training.cache import make_cache
from tests.data import ct_and_label, cut_all, cut_slices, kits_case, loose_ct
from utils.batch import UNLABELLED, Batch
from utils.errors import UserError
from utils.memory import free_memory, free_on_host
from utils.seeding import generator

FRAMES = {"cropped": Frame(0, 16), "padded": Frame(0, 48), "resized": Frame(32, 24)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for number in range(3):
        kits_case(root / "raw", number)
    cut_slices(root / "raw", root / "out", task="all", val_fraction=0, slices="all")
    cut_all(loose_ct(root / "loose", "x", "y"), root / "without")
    return root


@pytest.fixture(scope="module")
def slices(folder: Path) -> SliceFolder:
    return SliceFolder.open(folder / "out", "kits", "all")


@pytest.fixture(scope="module")
def without(folder: Path, slices: SliceFolder) -> UnlabelledSlices:
    return unlabelled_slices([folder / "without"], slices, slices.train, set())


def drawn(
    dataset: SliceDataset, cached: bool, workers: int = 0, start: int = 0, threads: int = 0, **options: Any
) -> list[Batch]:
    """The batches of two epochs from a step on."""
    cache = SliceCache(dataset, CPU, threads) if cached else None
    loader = TrainingLoader(dataset, 5, workers, cache=cache, **options)
    return list(loader.between(start, 2 * loader.steps_per_epoch))


def assert_equal(one: list[Batch], other: list[Batch]) -> None:
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.image, b.image) and torch.equal(a.mask, b.mask)
        assert a.cases == b.cases and a.share == b.share


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("augment", AUGMENTS)
def test_cached_batches_are_those_from_disk(slices: SliceFolder, augment: str, frame: str) -> None:
    dataset = SliceDataset(slices, slices.train, FRAMES[frame], augment, seed=4)
    assert_equal(drawn(dataset, cached=True), drawn(dataset, cached=False))


def test_with_workers_unlabelled_slices_mixup_and_from_any_step(slices: SliceFolder, without: UnlabelledSlices) -> None:
    dataset = SliceDataset(slices, slices.train, FRAMES["cropped"], "mild", 4, unlabelled=without)
    options = {"unlabelled_per_batch": 3, "mixup_alpha": 0.4}
    cached = drawn(dataset, cached=True, **options)
    assert_equal(cached, drawn(dataset, cached=False, workers=2, **options))
    assert_equal(cached[3:], drawn(dataset, cached=True, start=3, threads=3, **options))
    assert all((batch.mask[-3:] == UNLABELLED).all() for batch in cached)


@pytest.mark.parametrize("augment", AUGMENTS)
def test_a_slice_of_a_batch_is_the_sample(slices: SliceFolder, augment: str) -> None:
    """That each slice is augmented as it would be alone."""
    dataset = SliceDataset(slices, slices.train, FRAMES["resized"], augment, seed=4)
    items = [(1, i) for i in range(8)]
    batch = dataset.finish(dataset.load(items), items)
    for item, image, mask in zip(items, batch.image, batch.mask, strict=True):
        alone, alone_mask, _ = dataset[item]
        assert torch.equal(image, alone) and torch.equal(mask, alone_mask)


def test_paper_flips_and_turns_as_pytorch_does() -> None:
    images, masks = torch.rand(40, 2, 6, 6), torch.randint(3, (40, 6, 6), dtype=torch.uint8)
    moved, moved_masks = AUGMENTS["paper"].of_batch(images, masks, [generator(0, i) for i in range(40)])
    for i in range(40):
        rng = generator(0, i)
        flips = [axis for axis in (-2, -1) if rng.random() < 0.5]
        turns = int(rng.integers(4))
        assert torch.equal(moved[i], torch.rot90(images[i].flip(flips), turns, (-2, -1)))
        assert torch.equal(moved_masks[i], torch.rot90(masks[i].flip(flips), turns, (-2, -1)))


def test_mild_moves_as_pytorch_s_affine_grid_does() -> None:
    """At most 2e-4 between them, in an image that spans -1 to 1, for both round a place to less than 1e-6 of a side."""
    from datasets.augment import _affine, _move

    images = torch.nn.functional.avg_pool2d(torch.rand(6, 1, 40, 60) * 2 - 1, 5, 1, 2)
    matrices = torch.tensor([_affine(generator(0, i), 40, 60) for i in range(6)], dtype=torch.float32)
    grid = torch.nn.functional.affine_grid(matrices, [6, 1, 40, 60], align_corners=False)
    expected = torch.nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    moved, _ = _move(images, (images[:, 0] > 0).to(torch.uint8), matrices)
    torch.testing.assert_close(moved, expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("window", [(-200.0, 300.0), (-1000.0, 12.5), (-40000.0, 300.0)])
@pytest.mark.parametrize("frame", FRAMES)
def test_windowing_comes_after_framing_as_it_would_before(frame: str, window: tuple[float, float]) -> None:
    ct, _ = (volume[1] for volume in ct_and_label(seed=1))
    expected = FRAMES[frame].image(torch.from_numpy(window_image(ct, *window))[None])
    values, maps = framed_image(ct, window, FRAMES[frame])
    assert values.dtype == torch.int16
    tolerance = 1 / LEVELS[1] if frame == "resized" or window[0] < -(2**15) else 0
    torch.testing.assert_close(windowed(values, maps)[0], expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("threads", [0, 2])
def test_a_cache_reads_each_slice_once_and_only_when_it_is_needed(
    slices: SliceFolder, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    dataset = SliceDataset(slices, slices.train, FRAMES["cropped"])
    read, reading = [], slices.read
    monkeypatch.setattr(slices, "read", lambda name: read.append(name) or reading(name))
    loader = TrainingLoader(dataset, 4, 0, cache=SliceCache(dataset, CPU, threads))
    next(loader.between(0, 3))
    assert len(read) == 4
    list(loader.between(0, 3 * loader.steps_per_epoch))
    assert sorted(read) == sorted(slices.train)


def test_what_is_kept_where(slices: SliceFolder) -> None:
    framed, native = (SliceDataset(slices, slices.train, frame) for frame in (Frame(0, 16), Frame(0, 0)))
    assert cache_bytes(framed) == len(slices.train) * 16 * 16 * 3 and cache_bytes(native) == 0
    assert make_cache("none", framed, CPU) is None and make_cache("auto", native, CPU) is None
    for choice in ("auto", "ram", "device"):
        assert make_cache(choice, framed, CPU).device == CPU
    with pytest.raises(UserError, match="--cache ram: only slices of one size"):
        make_cache("ram", native, CPU)
    with pytest.raises(ValueError, match="differ in size"):
        SliceCache(native, CPU)


def test_slices_that_do_not_fit(slices: SliceFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = SliceDataset(slices, slices.train, Frame(0, 16))
    size = cache_bytes(dataset)
    monkeypatch.setattr("engine.training.cache.free_memory", lambda _: size - 1)
    with pytest.raises(UserError, match=r"--cache ram: the slices take .* GB are free; use --cache none"):
        make_cache("ram", dataset, CPU)
    monkeypatch.setattr("engine.training.cache.free_memory", lambda _: 8 * size - 1)
    assert make_cache("auto", dataset, CPU) is None and make_cache("ram", dataset, CPU) is not None


def test_free_memory_is_what_a_container_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < free_memory(CPU) < 2**50 and free_memory(torch.device("meta")) == 0
    monkeypatch.setattr("utils.memory.GROUP", tmp_path)
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert free_memory(CPU) == 4_000_000
    (tmp_path / "memory.stat").write_text("anon 1\nactive_file 7\ninactive_file 600000\n")
    assert free_memory(CPU) == 4_600_000
    (tmp_path / "memory.current").write_text("6000000\n")
    assert free_on_host() == 0
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(CPU) > 4_000_000
