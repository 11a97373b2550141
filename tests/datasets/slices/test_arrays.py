"""Arrays of .npz files are NumPy's, however they are stored, and damage is seen."""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pytest
from numpy.typing import NDArray

from datasets.slices.arrays import read_arrays

ARRAYS: dict[str, NDArray[Any]] = {
    "slice": np.arange(-6, 6, dtype=np.int16).reshape(3, 4),
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "other order of bytes": np.arange(5, dtype=">i4"),
    "without elements": np.zeros((0, 3), np.uint8),
    "single number": np.array(2.5),
    "many axes": np.ones((1,) * 30, np.uint8),
    "fields": np.zeros(2, [(f"a field with a long name {i}", "<i2") for i in range(9)]),
}
SAVES = {"stored": np.savez, "compressed": np.savez_compressed}


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_those_of_numpy(name: str, save: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    SAVES[save](path, mask=np.ones(3), ct=ARRAYS[name])
    read, mask = read_arrays(path, ("ct", "mask"))
    np.testing.assert_array_equal(read, ARRAYS[name], strict=True)
    np.testing.assert_array_equal(mask, np.ones(3), strict=True)
    assert read.flags.writeable


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("place", ["header", "values", "end"])
def test_damage_is_seen(save: str, place: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    SAVES[save](path, ct=np.random.default_rng(0).integers(0, 99, (40, 40)))
    content = bytearray(path.read_bytes())
    at = {"header": 60, "values": len(content) // 2, "end": len(content) - 10}[place]
    content[at] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises((ValueError, BadZipFile, zlib.error)):
        read_arrays(path, ("ct",))


def test_missing_arrays_and_pickled_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, objects=np.array([{}, None], dtype=object), ct=np.ones(2))
    with pytest.raises(KeyError, match="mask"):
        read_arrays(path, ("mask",))
    with pytest.raises(ValueError, match="allow_pickle"):
        read_arrays(path, ("objects",))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(BadZipFile):
        read_arrays(path, ("ct",))


def test_several_threads_read_at_once(tmp_path: Path) -> None:
    """NumPy's own reading now and then fails so in CPython 3.11."""
    path = tmp_path / "a.npz"
    np.savez(path, ct=ARRAYS["slice"], mask=ARRAYS["fields"])
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(lambda _: read_arrays(path, ("ct", "mask")), range(2000)))
    assert all((ct == ARRAYS["slice"]).all() and (mask == ARRAYS["fields"]).all() for ct, mask in read)
