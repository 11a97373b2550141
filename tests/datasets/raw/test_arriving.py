"""Slices that are used while others are still being read, and labels that are written as they are decided."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

from datasets.raw.arriving import Arriving, Read
from datasets.raw.layout import Case
from datasets.raw.volume import LabelFile, Volume, read_volume, write_labels
from tests.data import ORIENTATIONS, ct_and_label, save
from utils.errors import UserError


def begin(case: Case, reads: Read) -> tuple[Arriving, Thread]:
    arriving = Arriving(case, reads)
    thread = Thread(target=arriving.read, daemon=True)
    thread.start()
    return arriving, thread


@pytest.fixture(autouse=True)
def one_slice_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.raw.nifti.SLAB_BYTES", 1)


@pytest.mark.parametrize("kind", [np.int16, ">i2", np.float32])
def test_every_part_is_there_when_it_is_given(tmp_path: Path, kind: object) -> None:
    image, _ = ct_and_label((7, 6, 5))
    for codes in ORIENTATIONS:
        path = save(image.astype(kind), tmp_path / "image.nii.gz", codes)
        case = Case("a", path, None)
        arriving, thread = begin(case, partial(read_volume, case, (), with_label=False))
        begun, found, order = arriving.begun(), np.zeros_like(image), []
        for part in arriving.parts(3):
            found[part] = begun.image[part]
            order.append(part.start)
        thread.join()
        whole = arriving.volume()
        assert np.array_equal(found, image) and np.array_equal(whole.image, image), codes
        assert order == ([6, 3, 0] if "I" in codes else [0, 3, 6])
        assert np.array_equal(whole.slices, begun.slices) and whole.spacing == begun.spacing


def test_slices_are_given_before_the_last_are_read(tmp_path: Path) -> None:
    image, _ = ct_and_label((6, 6, 5))
    case = Case("a", save(image, tmp_path / "image.nii", "LPS"), None)
    halfway, read = Event(), []

    def reads(*, arrived: Callable[[Volume, slice], None]) -> Volume:
        def slowly(volume: Volume, part: slice) -> None:
            if part.start == 4:
                assert halfway.wait(20)
            read.append(part.start)
            arrived(volume, part)

        return read_volume(case, (), with_label=False, arrived=slowly)

    arriving, _ = begin(case, reads)
    parts = arriving.parts(2)
    assert [next(parts), next(parts)] == [slice(0, 2), slice(2, 4)] and max(read) == 3
    halfway.set()
    assert list(parts) == [slice(4, 6)] and np.array_equal(arriving.volume().image, image)


def test_a_fault_reaches_whoever_waits(tmp_path: Path) -> None:
    path = save(ct_and_label((6, 6, 5))[0], tmp_path / "image.nii", "LPS")
    path.write_bytes(path.read_bytes()[:-10])
    case = Case("a", path, None)
    arriving, _ = begin(case, partial(read_volume, case, (), with_label=False))
    with pytest.raises(UserError, match="the file ends too early"):
        list(arriving.parts(2))
    with pytest.raises(UserError, match="the file ends too early"):
        arriving.volume()


@pytest.mark.parametrize("name", ["labels.nii", "labels.nii.gz"])
def test_labels_make_one_file_however_they_come(tmp_path: Path, name: str) -> None:
    image, label = ct_and_label((7, 60, 50))
    label[3, :, ::2] = 1
    for codes in ORIENTATIONS:
        case = Case("a", save(image, tmp_path / "image.nii", codes), None)
        volume = read_volume(case, ())
        write_labels(tmp_path / name, label, volume)
        file = LabelFile(volume, label.shape, tmp_path / f"parts-{name}")
        parts = [slice(0, 3), slice(3, 6), slice(6, 7)]
        for part in parts if volume.slices[0] == 0 else reversed(parts):
            file.add(part, label[part])
        file.save()
        assert (tmp_path / f"parts-{name}").read_bytes() == (tmp_path / name).read_bytes(), codes
