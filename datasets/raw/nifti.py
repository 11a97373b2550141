"""NIfTI files, read by nibabel a few planes at a time, straight into the array that the caller needs.

Arrays are [Z, Y, X] and grow to superior, posterior and left, whatever the file's order; reading makes no
float64 copy, and no second copy to reorder the axes.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from datasets.raw.gzipped import BROKEN_GZIP, open_gzip
from datasets.raw.light_nibabel import nib
from datasets.raw.turning import copy_turned
from utils.errors import UserError

# What is wrong in a header is raised or mended; nibabel would print it too.
SILENT = logging.Logger(__name__, logging.CRITICAL)
UNREADABLE: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    ValueError,
    nib.spatialimages.HeaderDataError,
    *BROKEN_GZIP,
)
# What a processor's cache holds while it is inflated and copied.
SLAB_BYTES = 1 << 21
# Of files whose slowest axis is not z: a slab gives each row of a slice only as many voxels as it has planes.
TURNED_SLAB_BYTES = 1 << 25
# The most bytes that one byte of deflate stands for.
DEFLATE_RATIO = 1032
# World axis (RAS) -> (array axis, direction): x to the left, y to posterior, z to superior.
ARRAY_AXES = {0: (2, -1), 1: (1, -1), 2: (0, 1)}


@dataclass(frozen=True)
class Orientation:
    """For each axis of the file: which array axis [Z, Y, X] it is, and -1 where it runs the other way."""

    axes: tuple[int, ...]
    directions: tuple[int, ...]

    @staticmethod
    def of(affine: NDArray[np.float64]) -> Orientation:
        """The orientation nearest to the affine; ValueError if the affine is singular."""
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise ValueError("its affine is singular")
        pairs = [(ARRAY_AXES[int(world)], int(flip)) for world, flip in nib.orientations.io_orientation(affine)]
        return Orientation(tuple(axis for (axis, _), _ in pairs), tuple(sign * flip for (_, sign), flip in pairs))

    def file_view(self, volume: NDArray[Any]) -> NDArray[Any]:
        """A view of `volume` [Z, Y, X] in the file's order of axes."""
        return volume.transpose(self.axes)[tuple(slice(None, None, sign) for sign in self.directions)]

    def array_view(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """A view [Z, Y, X] of `voxels` in the file's order of axes."""
        straight = voxels[tuple(slice(None, None, sign) for sign in self.directions)]
        return straight.transpose([self.axes.index(axis) for axis in range(3)])

    def to_zyx(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """`values`, one per file axis (shape, spacing), in the order z, y, x."""
        return tuple(values[self.axes.index(axis)] for axis in range(3))

    def slice_numbers(self, count: int) -> NDArray[np.intp]:
        """The file's slice number of each slice along z."""
        return np.arange(count)[:: self.directions[self.axes.index(0)]]


@dataclass
class Source:
    """An open file, or one channel of it. voxels: as stored, [n0, n1, n2, channels], read slab by slab."""

    path: Path
    header: Any
    affine: NDArray[np.float64]
    shape: tuple[int, ...]
    voxels: Any
    channel: int

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self.header.get_data_dtype()
        return dtype

    @property
    def forms(self) -> dict[str, NDArray[np.float64]]:
        """The affines that the header has, the first of which is used: its sform, its qform, or none."""
        forms = {}
        for name, read in (("sform", self.header.get_sform), ("qform", self.header.get_qform)):
            try:
                with np.errstate(all="ignore"):
                    affine = read(coded=True)[0]
                    if affine is not None:
                        Orientation.of(affine)
                        forms[name] = np.asarray(affine, np.float64)
            except (nib.spatialimages.HeaderDataError, ValueError):
                pass  # A damaged form that is used is an error already.
        return forms

    @property
    def scaling(self) -> tuple[float, float]:
        """Slope and intercept; 1 and 0 where the header has none."""
        slope, intercept = self.header.get_slope_inter()
        return (1.0 if slope is None else float(slope)), (0.0 if intercept is None else float(intercept))

    def load(
        self,
        dtype: Any,
        orientation: Orientation,
        convert: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
        arrived: Callable[[NDArray[Any], slice], None] | None = None,
        *,
        sparse: bool = False,
        as_stored: bool = False,
    ) -> NDArray[Any]:
        """The volume [Z, Y, X] as `dtype`; `convert` is applied to one slab at a time.

        arrived: where the file's last axis is z, gets the volume and those slices of it that have just been read.
        sparse: most of it is zero; as_stored: it may be a view of an array in the file's order, which saves turning it.
        """
        new = np.zeros if sparse else np.empty
        stored = new(self.shape, dtype, order="F") if as_stored else None
        volume = new(orientation.to_zyx(self.shape), dtype) if stored is None else orientation.array_view(stored)
        view = orientation.file_view(volume)
        z_is_last = orientation.axes[2] == 0
        for start, slab in self.slabs(SLAB_BYTES if z_is_last or as_stored else TURNED_SLAB_BYTES):
            stop = start + slab.shape[2]
            copy_turned(view[:, :, start:stop], slab if convert is None else convert(slab), sparse=sparse)
            if arrived is not None and z_is_last:
                upwards = orientation.directions[2] > 0
                arrived(volume, slice(start, stop) if upwards else slice(len(volume) - stop, len(volume) - start))
        return volume

    def slabs(self, most: int = SLAB_BYTES) -> Iterator[tuple[int, NDArray[Any]]]:
        """Slabs [n0, n1, k] of `most` bytes along the file's last (slowest) axis, each with its start index.

        Forwards only: a stream would be inflated anew for what lies behind.
        """
        n0, n1, n2 = self.shape
        step = max(1, most // (n0 * n1 * self.dtype.itemsize))
        for start in range(0, n2, step):
            try:
                slab = self.voxels[:, :, start : start + step, self.channel]
            except ValueError:
                raise EOFError("the file ends too early") from None
            yield start, slab


@contextmanager
def open_nifti(path: Path, channel: int | None = None) -> Iterator[Source]:
    """Open a 3D file, or one channel of a 4D file; any failure to read it becomes a UserError."""
    try:
        stream, most = _decompressed(path)
        with stream:
            header = _read_header(stream, most)
            shape = tuple(int(size) for size in header.get_data_shape())
            with np.errstate(all="ignore"):
                affine = np.asarray(header.get_best_affine(), np.float64)
                Orientation.of(affine)
            channels = math.prod(shape[3:])
            if len(shape) < 3 or min(shape) < 1 or (channels > 1 and channel is None) or (channel or 0) >= channels:
                raise UserError(
                    f"{path}: has shape {shape}; expected one 3D volume: split a 4D series, stack single slices"
                )
            # Without the header's scaling, which would make them float64.
            stored = (*shape[:3], channels), header.get_data_dtype(), header.get_data_offset()
            voxels = nib.arrayproxy.ArrayProxy(stream, stored, mmap=False)
            source = Source(path, header, affine, shape[:3], voxels, channel or 0)
            if source.dtype.kind not in "iuf":
                raise UserError(
                    f"{path}: has voxels of type {source.dtype}; expected numbers: convert it to grey values"
                )
            if math.prod(shape) * source.dtype.itemsize > most:
                raise EOFError("the file ends too early")  # Known before memory is asked for.
            yield source
            while stream.read(SLAB_BYTES):
                pass  # gzip verifies its checksum only at the end
    except MemoryError:
        raise UserError(f"{path}: does not fit into memory; crop or resample it, or use a larger machine") from None
    except UNREADABLE as error:
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)
        raise UserError(f"{path}: cannot be read as NIfTI ({reason}); copy, unpack or convert it again") from None


def _decompressed(path: Path) -> tuple[BinaryIO, int]:
    """The uncompressed bytes, and how many these are at most.

    gzip is recognised by its first two bytes.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    if compressed:
        return open_gzip(path), size * DEFLATE_RATIO
    return path.open("rb"), size


def _read_header(stream: BinaryIO, most: int) -> Any:
    """The header with its extensions; afterwards `stream` stands at the first voxel. most: bytes in the stream."""
    start = _read_exactly(stream, 4)
    sizes = {int.from_bytes(start, "little"), int.from_bytes(start, "big")}
    kind: Any = nib.Nifti1Header if 348 in sizes else nib.Nifti2Header
    if not sizes & {348, 540}:
        raise ValueError("it does not begin with a NIfTI header")
    start += _read_exactly(stream, kind.sizeof_hdr - 4)
    offset = float(kind(start, check=False)["vox_offset"])
    if not len(start) <= offset <= most:
        raise ValueError("it is one half of a .hdr/.img pair, or its header is damaged")
    extensions = _read_exactly(stream, int(offset) - len(start))
    header = kind.from_fileobj(io.BytesIO(start + extensions), check=False)
    header.check_fix(SILENT)
    return header


def _read_exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError("the file ends too early")
    return data
