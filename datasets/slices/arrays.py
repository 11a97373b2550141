"""Arrays of .npz files. Those that are not compressed are read in half of NumPy's time, which goes into checksums."""

from __future__ import annotations

import math
import os
import re
import struct
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

try:
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

ENCRYPTED = 1
"""Of a member's flags."""
LENGTHS = 26
"""Where a member's header says how long its name and its further fields are, which end that header."""
MAGIC = b"\x93NUMPY\x01\x00"
DESCRIPTION = re.compile(r"{'descr': '([<>|][biuf]\d+)', 'fortran_order': False, 'shape': \(([\d, ]*)\), } *\n")
"""What NumPy writes before an array of numbers. It reads that as Python, in which some versions of CPython fail now and
then when several threads do so at once."""
ONE_THREAD = Lock()


def read_arrays(path: Path, names: tuple[str, ...]) -> list[NDArray[Any]]:
    """OSError, KeyError, ValueError or one of zipfile's errors for a file that cannot be opened, or is damaged."""
    with path.open("rb") as file, ZipFile(file) as archive:
        return [_read(file, archive, archive.getinfo(f"{name}.npy")) for name in names]


def _read(file: BinaryIO, archive: ZipFile, member: ZipInfo) -> NDArray[Any]:
    plain = member.compress_type == ZIP_STORED and not member.flag_bits & ENCRYPTED
    array = _read_plain(file, member) if plain else None
    if array is None:
        with ONE_THREAD, archive.open(member) as stream:
            array = npy.read_array(stream)
    return array


def _read_plain(file: BinaryIO, member: ZipInfo) -> NDArray[Any] | None:
    """None for what is rare: Fortran's order, fields or objects, a file that is shorter than it should be."""
    file.seek(member.header_offset + LENGTHS)
    lengths = file.read(4)
    start = file.tell() + sum(struct.unpack("<HH", lengths)) if len(lengths) == 4 else 0
    if not 0 < start <= os.fstat(file.fileno()).st_size - member.file_size:
        return None
    file.seek(start)
    content = np.fromfile(file, np.uint8, member.file_size)
    if crc32(content) != member.CRC:
        raise ValueError(f"{member.filename}: its checksum is wrong")
    begin = len(MAGIC) + 2
    end = begin + int.from_bytes(content[len(MAGIC) : begin].tobytes(), "little")
    described = DESCRIPTION.fullmatch(content[begin:end].tobytes().decode("latin-1"))
    if content[: len(MAGIC)].tobytes() != MAGIC or described is None:
        return None
    dtype, shape = np.dtype(described[1]), [int(side) for side in described[2].split(",") if side.strip()]
    if len(content) - end != math.prod(shape) * dtype.itemsize:
        return None
    return np.require(content[end:].view(dtype).reshape(shape), requirements="A")
