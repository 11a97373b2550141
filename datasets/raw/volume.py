"""One case in memory, its axes growing to superior, posterior and left, and label maps back to files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datasets.raw.geometry import codes, form_notes, image_notes, place_label
from datasets.raw.gzipped import compressing
from datasets.raw.hounsfield import check_hounsfield, looks_like_hounsfield, refuse_modality
from datasets.raw.intensities import Scaled, fill_non_finite, level_counts, to_int16
from datasets.raw.label_values import read_label
from datasets.raw.layout import Case
from datasets.raw.light_nibabel import nib
from datasets.raw.nifti import Orientation, Source, open_nifti
from datasets.raw.options import AS_IT_SHOULD_BE, IntensityOptions, ReadingOptions
from datasets.raw.segments import SegmentCode
from datasets.raw.tree import nifti_stem
from datasets.raw.turning import copy_turned
from utils.errors import UserError
from utils.files import atomic_write, write_bytes
from utils.stored_as import StoredAs

if TYPE_CHECKING:
    from datasets.raw.dicom_volume import Series


@dataclass
class Volume:
    """image: int16 [Z, Y, X], physical value = image * scale + shift (1, 0 for HU); label: uint8 [Z, Y, X].

    spacing: (z, y, x) in mm; affine, header: the source's; slices: [Z], the source's slice numbers;
    notes: what is unusual but not an error; label_geometry: "header" or "array" where that choice placed the label;
    series: of DICOM, what a SEG refers to.
    """

    case: Case
    image: NDArray[np.int16]
    label: NDArray[np.uint8] | None
    spacing: tuple[float, float, float]
    affine: NDArray[np.float64]
    header: Any
    scale: float
    shift: float
    slices: NDArray[np.intp]
    notes: list[str] = field(default_factory=list)
    label_geometry: str | None = None
    series: Series | None = None

    @property
    def stored_as(self) -> StoredAs:
        """Of its axial slices."""
        return StoredAs(self.spacing, self.scale, self.shift, codes(self.affine))

    @cached_property
    def level_counts(self) -> NDArray[np.int64]:
        """How often the image has each of the values -32768 to 32767."""
        return level_counts(self.image)


def read_volume(
    case: Case,
    labels: Iterable[int],
    with_label: bool = True,
    *,
    hounsfield: bool | None = None,
    reading: IntensityOptions = AS_IT_SHOULD_BE,
    segments: Mapping[int, SegmentCode] | None = None,
    arrived: Callable[[Volume, slice], None] | None = None,
    as_stored: bool = False,
) -> Volume:
    """Read a case; UserError if a file is unreadable, the two do not fit, or a label is not in `labels`.

    hounsfield: whether it should be CT, None where nobody knows; UserError if the intensities of CT can't be HU, unless
    `reading` allows that. segments: what a DICOM SEG calls the labels. arrived: gets the slices along z that have just
    been read, and the volume so far, unchecked and without notes; nothing where it can't be read slice by slice.
    as_stored: the image may stay in the file's order in memory, for whoever takes its slices by `pick_slices`.
    """
    if hounsfield and not reading.any_intensity:
        refuse_modality(case)
    with _open_image(case) as source:
        orientation = Orientation.of(source.affine)

        def tell(image: NDArray[np.int16], part: slice) -> None:
            if arrived is not None:
                arrived(_volume(case, source, orientation, image), part)

        image, scale, shift, notes = _read_image(
            source, orientation, bool(hounsfield), reading.any_intensity, tell, as_stored
        )
    notes = image_notes(source) + notes
    label, choice = None, None
    if with_label and case.label is not None:
        with _open_label(case.label, source, segments or {}) as mask:
            chosen = reading.label_geometry if isinstance(reading, ReadingOptions) else None
            placed, differences, choice = place_label(mask, source, chosen)
            label, rounded = read_label(mask, placed, frozenset(labels))
        notes += form_notes(mask, "the segmentation's") + differences + rounded
    volume = _volume(case, source, orientation, image)
    volume.label, volume.scale, volume.shift, volume.notes, volume.label_geometry = label, scale, shift, notes, choice
    if hounsfield:
        notes += check_hounsfield(volume.level_counts, scale, shift, case.image, reading.any_intensity)
    elif hounsfield is False and looks_like_hounsfield(volume.level_counts, scale, shift):
        notes.append("looks like CT, but is read as MR: name the modality in dataset.json, or give a list's --window")
    return volume


class LabelFile:
    """Labels as a NIfTI file that is made in memory, in the source's orientation, affine and header.

    They need not be there all at once: where the file's last axis is z, slices are compressed as they come.
    """

    def __init__(self, volume: Volume, shape: tuple[int, ...], path: Path) -> None:
        """volume: what the labels [Z, Y, X] of that shape lie on; it may still be without pixels."""
        self.orientation = Orientation.of(volume.affine)
        self.path = path
        of_file = tuple(shape[axis] for axis in self.orientation.axes)
        self.voxels = None if self.orientation.axes[2] == 0 else np.empty(of_file, np.uint8, order="F")
        self.content = io.BytesIO()
        self.stream: Any = compressing(self.content) if is_compressed(path) else self.content
        header = nifti_image(np.broadcast_to(np.uint8(0), of_file), volume).header
        header.set_slope_inter(1, 0)  # nibabel takes them out of an image's header, to put them in when it writes.
        header.write_to(self.stream)
        self.stream.write(bytes(header.get_data_offset() - self.stream.tell()))

    def add(self, part: slice, labels: NDArray[np.uint8]) -> None:
        """Labels [n, Y, X] of slices along z; the next ones in the file's order."""
        if self.voxels is None:
            self._write_planes(self.orientation.file_view(labels))
        else:
            copy_turned(self.orientation.array_view(self.voxels)[part], labels)

    def save(self) -> None:
        """Write the file, after all labels were added."""
        if self.voxels is not None:
            self._write_planes(self.voxels)
        if self.stream is not self.content:
            self.stream.close()
        write_bytes(self.path, self.content.getbuffer())

    def _write_planes(self, voxels: NDArray[np.uint8]) -> None:
        for plane in voxels.T:
            self.stream.write(plane.tobytes())


def write_labels(path: Path, labels: NDArray[np.uint8], volume: Volume) -> None:
    """Write labels [Z, Y, X] as uint8 .nii or .nii.gz in the source's orientation, affine and header."""
    file = LabelFile(volume, labels.shape, path)
    file.add(slice(None), labels)
    file.save()


def write_nifti(path: Path, voxels: NDArray[Any], volume: Volume) -> None:
    """Write voxels, in the file's order of axes, as .nii or .nii.gz with the source's affine and header."""
    image = nifti_image(voxels, volume)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        if not is_compressed(path):
            image.to_stream(file)
            return
        with compressing(file) as stream:
            image.to_stream(stream)


def is_compressed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def nifti_image(voxels: NDArray[Any], volume: Volume) -> Any:
    """nibabel's image of voxels in the file's order of axes, with the source's affine and header.

    Without the source's free text and extensions, which may name the patient. Equal voxels make equal files.
    """
    header = volume.header.copy()
    header.set_data_dtype(voxels.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    header["descrip"] = header["aux_file"] = header["intent_name"] = b""
    if "db_name" in header:
        header["db_name"] = b""
    header.extensions.clear()
    kind: Any = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    return kind(voxels, volume.affine, header)


def _volume(case: Case, source: Source, orientation: Orientation, image: NDArray[np.int16]) -> Volume:
    """An image whose values are as stored, as the source's header places it."""
    z, y, x = orientation.to_zyx(tuple(float(size) for size in nib.affines.voxel_sizes(source.affine)))
    numbers = orientation.slice_numbers(len(image))
    series = getattr(source, "series", None)
    return Volume(case, image, None, (z, y, x), source.affine, source.header, 1.0, 0.0, numbers, series=series)


def _open_image(case: Case) -> AbstractContextManager[Source]:
    if not case.files:
        return open_nifti(case.image, case.channel)
    from datasets.raw.dicom_volume import open_series  # highdicom takes seconds to load, which NIfTI need not wait for

    return nullcontext(open_series(case))


def _open_label(path: Path, image: Source, segments: Mapping[int, SegmentCode]) -> AbstractContextManager[Source]:
    if nifti_stem(path):
        return open_nifti(path)
    from datasets.raw.dicom_seg import open_seg
    from datasets.raw.dicom_volume import SeriesSource

    if not isinstance(image, SeriesSource):
        raise UserError(f"{path}: is DICOM, but {image.path} is not; give the segmentation as NIfTI")
    return nullcontext(open_seg(path, image, segments))


def _read_image(
    source: Source,
    orientation: Orientation,
    hounsfield: bool,
    any_intensity: bool,
    arrived: Callable[[NDArray[np.int16], slice], None],
    as_stored: bool,
) -> tuple[NDArray[np.int16], float, float, list[str]]:
    """The image as int16, the scale and shift that restore its physical values, and notes."""
    if source.scaling == (1.0, 0.0) and np.can_cast(source.dtype, np.int16):
        return source.load(np.int16, orientation, arrived=arrived, as_stored=as_stored), 1.0, 0.0, []
    raw = source.load(source.dtype.newbyteorder("="), orientation)
    filled = fill_non_finite(raw, source.path, any_intensity)
    image, scale, shift, notes = to_int16(Scaled(raw, *source.scaling), source.path, hounsfield, any_intensity)
    return image, scale, shift, filled + notes
