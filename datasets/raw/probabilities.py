"""Class probabilities of a case in files, on the image's own grid: nnU-Net's CASE.npz, or 4D NIfTI.

F. Isensee, P. F. Jaeger, S. A. A. Kohl, J. Petersen, K. H. Maier-Hein: nnU-Net, Nature Methods 2021; its version 2
writes, with --save_probabilities, `probabilities` [C, z, y, x] of which z, y, x are the stored axes of the image, the
last one first, wherever these point; but its reader `NibabelIOWithReorient`, which plans.json names, turns the image to
right, anterior and superior first, and only labels are turned back. The .pkl beside it is never read.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from datasets.raw.geometry import NEAR, codes, compose, distance, relative_orientation
from datasets.raw.layout import match_case
from datasets.raw.nifti import Orientation, Source, open_nifti
from datasets.raw.tree import SUFFIXES, nifti_stem
from datasets.raw.volume import Volume
from utils.errors import UserError
from utils.files import read_json

MEMBER = "probabilities.npy"
NPZ = ".npz"
OF_NIFTI = "_probabilities"
"""What predict.py adds to a case's name, as the labels have the name itself."""
ROUNDING = 0.01
"""How far from 0..1 a probability may lie."""
REMEDY = "write it again with --save_probabilities of nnUNetv2_predict, or with scripts/answer.py"

Channel = NDArray[np.float32]
"""[Z, Y, X], as `Volume.image`."""


def probability_files(folder: Path) -> dict[str, Path]:
    """The files in a folder that may hold probabilities, by the names of their cases.

    Of one case CASE.npz goes before CASE_probabilities.nii.gz, and this before CASE.nii.gz.
    """
    found: dict[str, Path] = {}
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    niftis = {path: nifti_stem(path) or "" for path in paths if path.name.lower().endswith(SUFFIXES)}
    found |= {stem: path for path, stem in niftis.items() if not stem.endswith(OF_NIFTI)}
    found |= {stem.removesuffix(OF_NIFTI): path for path, stem in niftis.items() if stem.endswith(OF_NIFTI)}
    return found | {path.stem: path for path in paths if path.suffix == NPZ}


def file_of_case(case: str, files: dict[str, Path]) -> Path | None:
    """The entry of `probability_files` of a case, named as any layout names it."""
    return files.get(match_case(case, files))


@contextmanager
def open_probabilities(path: Path, volume: Volume) -> Iterator[tuple[int, Iterator[Channel]]]:
    """The number of channels, and these one after another, each brought to the grid of its image.

    UserError if the file cannot be read, lies on another grid, or holds something else.
    """
    if path.suffix != NPZ:
        with open_nifti(path, 0) as source:
            count = math.prod(int(size) for size in source.header.get_data_shape()[3:])
            _refuse_single(path, count)
            orientation = _place(source, volume)
            slope, intercept = source.scaling

            def scaled(slab: NDArray[Any]) -> NDArray[np.float32]:
                return (slab * slope + intercept).astype(np.float32)

            each_channel = (replace(source, channel=number) for number in range(count))
            yield count, (_checked(each.load(np.float32, orientation, scaled), path) for each in each_channel)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            if MEMBER not in archive.namelist():
                raise UserError(f"{path}: holds no array `probabilities`; {REMEDY}")
            with archive.open(MEMBER) as file:
                count, channels = _read_npy(path, file, volume)
                yield count, channels
    except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as probabilities ({error}); {REMEDY}") from None


def _read_npy(path: Path, file: IO[bytes], volume: Volume) -> tuple[int, Iterator[Channel]]:
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(file)
    if dtype.kind != "f" or len(shape) != 4:
        raise UserError(f"{path}: holds {dtype} of shape {shape}, not probabilities [C, z, y, x]; {REMEDY}")
    _refuse_single(path, shape[0])
    turned = _was_reoriented(path)
    orientation = Orientation.of(np.eye(4) if turned else volume.affine)
    expected = tuple(volume.image.shape[axis] for axis in reversed(orientation.axes))
    if shape[1:] != expected:
        raise UserError(f"{path}: has shape {shape[1:]}, but {volume.case.image} has {expected}; {REMEDY}")

    def channels() -> Iterator[Channel]:
        size = dtype.itemsize * math.prod(expected)
        whole = None
        if fortran:
            whole = np.frombuffer(_read(file, shape[0] * size), dtype).reshape(shape, order="F")
        for number in range(shape[0]):
            stored = np.frombuffer(_read(file, size), dtype).reshape(expected) if whole is None else whole[number]
            yield _checked(orientation.array_view(stored.T).astype(np.float32), path)
        file.read(1)  # The checksum is compared at the end.

    return int(shape[0]), channels()


def beside(path: Path, name: str) -> Path | None:
    """A file of nnU-Net's beside a case's probabilities, or, of a fold's validation, beside the folds."""
    folder = path.parent
    places = [folder, folder.parent.parent] if folder.name == "validation" else [folder]
    return next((place / name for place in places if (place / name).is_file()), None)


def _was_reoriented(path: Path) -> bool:
    """Whether nnU-Net's probabilities lie in the axes of RAS in place of the image's own."""
    plans = beside(path, "plans.json")
    content = read_json(plans) if plans else None
    return isinstance(content, dict) and content.get("image_reader_writer") == "NibabelIOWithReorient"


def _read(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise EOFError("the file ends too early")
    return data


def _refuse_single(path: Path, count: int) -> None:
    if count < 2:
        raise UserError(f"{path}: is one volume; expected a probability for each class of every voxel: {REMEDY}")


def _place(source: Source, volume: Volume) -> Orientation:
    """How to read a NIfTI file's voxels onto the image's; UserError if they lie elsewhere."""
    own = Orientation.of(volume.affine)
    turn = Orientation((0, 1, 2), (1, 1, 1))
    if source.forms:
        turn = relative_orientation(volume.affine, source.affine)
    placed = compose(own, turn)
    fits = placed.to_zyx(source.shape) == volume.image.shape
    if not fits or (source.forms and distance(volume.affine, source.affine, source.shape, turn) > NEAR):
        grids = [f"{codes(affine)} at {affine[:3, 3].round(1).tolist()}" for affine in (source.affine, volume.affine)]
        raise UserError(
            f"{source.path}: lies on another grid than {volume.case.image} ({grids[0]}, not {grids[1]}, or of another "
            "shape); resample it to the image, or " + REMEDY
        )
    return placed


def _checked(channel: Channel, path: Path) -> Channel:
    """UserError unless the values are probabilities."""
    low, high = float(channel.min()), float(channel.max())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise UserError(f"{path}: holds values from {low:.4g} to {high:.4g}, which are no probabilities; {REMEDY}")
    return channel


def hard_labels(probabilities: NDArray[Any]) -> NDArray[np.uint8]:
    """The most probable class, [C, Z, Y, X] -> [Z, Y, X]; the first one of a tie."""
    best = probabilities[0].copy()
    labels = np.zeros(best.shape, np.uint8)
    for index, values in enumerate(probabilities[1:], start=1):
        labels[values > best] = index
        np.maximum(best, values, out=best)
    return labels
