"""Arrays of .npz files. Those that are not compressed are read in half of NumPy's time, which goes into checksums."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

try:
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

LENGTHS = 26
"""Where a member's header says how long its name and its further fields are, which end that header."""
LONGEST_START = 10 + 0xFFFF
"""Bytes of an array's description in the first version of its format, which nearly all arrays are written in."""


def read_arrays(path: Path, names: tuple[str, ...]) -> list[NDArray[Any]]:
    """OSError, KeyError, ValueError or one of zipfile's for a file that cannot be opened, or is damaged."""
    with path.open("rb") as file, ZipFile(file) as archive:
        return [_read(file, archive, archive.getinfo(f"{name}.npy")) for name in names]


def _read(file: BinaryIO, archive: ZipFile, member: ZipInfo) -> NDArray[Any]:
    if member.compress_type == ZIP_STORED:
        file.seek(member.header_offset + LENGTHS)
        file.seek(sum(struct.unpack("<HH", file.read(4))), 1)
        content = np.fromfile(file, np.uint8, member.file_size)
        if crc32(content) != member.CRC:
            raise ValueError(f"{member.filename}: its checksum is wrong")
        start = BytesIO(content[:LONGEST_START].tobytes())
        if npy.read_magic(start) == (1, 0):
            shape, transposed, dtype = npy.read_array_header_1_0(start)
            if not (transposed or dtype.hasobject):
                return content[start.tell() :].view(dtype).reshape(shape)
    with archive.open(member) as stream:
        array: NDArray[Any] = npy.read_array(stream)
    return array
