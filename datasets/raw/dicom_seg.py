"""Label volumes as DICOM Segmentation objects (SEG) that lie on their series, and back. highdicom does both."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np
from highdicom.seg import SegmentationTypeValues
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from datasets.raw.dicom_volume import SeriesSource, source_of
from datasets.raw.nifti import Orientation
from datasets.raw.segments import ABNORMAL, CATEGORIES, LONGEST_NAME, MAKER, SNOMED, SegmentCode, match_segments
from datasets.raw.volume import Volume
from utils.errors import UserError
from utils.files import atomic_write

# In voxels, and of direction cosines.
TOLERANCE = 1e-3
SERIES_NUMBER = 900
UTF_8 = "ISO_IR 192"
OF_PATIENT_AND_STUDY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
)
"""Of type 2: DICOM wants them in every image, and allows them to be empty. Programs that anonymise delete them."""


@dataclass(frozen=True)
class Algorithm:
    """Which network segmented, as the SEG names it."""

    name: str
    version: str


def write_dicom_seg(
    path: Path,
    labels: NDArray[np.uint8],
    volume: Volume,
    segments: Mapping[int, SegmentCode],
    algorithm: Algorithm,
    *,
    labelmap: bool = False,
) -> None:
    """Write labels [Z, Y, X] of a DICOM series as SEG; segments: label -> its code, one segment each, empty or not.

    labelmap: LABELMAP (one frame a slice, 2024) in place of BINARY (one for each segment and slice, read everywhere).
    UserError, and nothing written, where the series' headers do not suffice.
    """
    assert volume.series is not None, "a SEG refers to a DICOM series"
    numbers = np.zeros(256, np.uint8)
    numbers[list(segments)] = np.arange(1, len(segments) + 1)
    stored = Orientation.of(volume.affine).file_view(numbers[labels]).T
    kind = SegmentationTypeValues.LABELMAP if labelmap else SegmentationTypeValues.BINARY
    name = algorithm.name[:LONGEST_NAME]
    try:
        with warnings.catch_warnings(action="ignore"):  # of values in the source's header
            seg = hd.seg.Segmentation(
                source_images=_complete(volume.series.slices),
                pixel_array=volume.series.geometry.with_array(np.ascontiguousarray(stored)),
                segmentation_type=kind,
                segment_descriptions=[
                    _description(number, code, name, algorithm.version)
                    for number, code in enumerate(segments.values(), start=1)
                ],
                series_instance_uid=hd.UID(),
                series_number=SERIES_NUMBER,
                sop_instance_uid=hd.UID(),
                instance_number=1,
                manufacturer=MAKER,
                manufacturer_model_name=name,
                software_versions=algorithm.version,
                device_serial_number="none",
                omit_empty_frames=bool(stored.any()),  # highdicom writes all frames of an empty one, and says so
                content_label="SEGMENTATION",
                series_description=f"Segmentation by {name}"[:LONGEST_NAME],
                specific_character_set=UTF_8,  # the series' own need not have the letters of the names
            )
            _decode_items(seg, volume.series.slices[0])
            with atomic_write(path) as temporary:
                seg.save_as(temporary)
    except (ValueError, AttributeError, KeyError, TypeError, RuntimeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{volume.case.image}: no DICOM SEG can refer to it ({reason}); mend its headers, or leave out --dicom_seg"
        ) from None


def open_seg(path: Path, image: SeriesSource, segments: Mapping[int, SegmentCode]) -> SeriesSource:
    """A SEG as source labels [columns, rows, slices] on its series; segments: label -> its code.

    Where segments overlap the tumour wins, for it is part of its organ, and of two of a kind the higher label.
    UserError if the SEG cannot be read, does not lie on the slices, or holds a segment that is no label.
    """
    geometry = image.series.geometry
    try:
        with warnings.catch_warnings(action="ignore"):
            seg = hd.seg.segread(str(path))
            if seg.segmentation_type == SegmentationTypeValues.FRACTIONAL:
                raise UserError(f"{path}: holds probabilities (FRACTIONAL); save it as BINARY or LABELMAP")
            if seg.FrameOfReferenceUID != geometry.frame_of_reference_uid:
                raise UserError(f"{path}: is in another frame of reference than {image.path}; register it first")
            found = {number: seg.get_segment_description(number) for number in seg.segment_numbers}
            named = {
                number: (
                    str(each.segmented_property_type.scheme_designator),
                    str(each.segmented_property_type.value),
                    str(each.segment_label),
                )
                for number, each in found.items()
            }
            matched = match_segments(named, segments, path)
            array = np.zeros(geometry.spatial_shape, np.uint8)
            for number, label in sorted(matched.items(), key=lambda each: _precedence(each[1], segments)):
                part = seg.get_volume(segment_numbers=[number], combine_segments=True, relabel=True, dtype=np.uint8)
                array[part.match_geometry(geometry, tol=TOLERANCE).array > 0] = label
    except RuntimeError as error:
        raise UserError(f"{path}: does not lie on the slices of {image.path} ({error}); resample it") from None
    except (ValueError, AttributeError, KeyError, TypeError, OSError) as error:
        raise UserError(
            f"{path}: cannot be read as DICOM SEG ({' '.join(str(error).split())}); save it again"
        ) from None
    return source_of(geometry.with_array(array), image.series, path)


def _complete(slices: Sequence[FileDataset]) -> list[FileDataset]:
    """The series for highdicom, which takes patient and study from the first header: what that lacks is empty there.

    That one is a copy.
    """
    first = deepcopy(slices[0])
    for keyword in OF_PATIENT_AND_STUDY:
        if keyword not in first:
            setattr(first, keyword, "")
    return [first, *slices[1:]]


def _decode_items(seg: hd.seg.Segmentation, source: FileDataset) -> None:
    """Read the texts in sequences of the source, which pydicom would write as bytes of the source's character set."""
    for element in seg:
        if element.VR == "SQ" and element.tag in source:
            for item in element.value:
                item.decode()


def _precedence(label: int, segments: Mapping[int, SegmentCode]) -> tuple[bool, int]:
    return segments[label].category == ABNORMAL, label


def _description(number: int, code: SegmentCode, algorithm: str, version: str) -> hd.seg.SegmentDescription:
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=code.name,
        segmented_property_category=Code(code.category, SNOMED, CATEGORIES[code.category]),
        segmented_property_type=_code(code),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=algorithm, family=codes.DCM.ArtificialIntelligence, version=version
        ),
        anatomic_regions=[_code(code.region)] if code.region else None,
        display_color=hd.color.CIELabColor.from_rgb(*code.colour),
    )


def _code(code: SegmentCode) -> Code:
    return Code(code.value, code.scheme, code.meaning)
