"""Label volumes as DICOM Segmentation objects (SEG) that lie on their series, and back. highdicom does both."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np
from highdicom.seg import SegmentationTypeValues
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from datasets.raw.dicom_volume import SeriesSource, source_of
from datasets.raw.nifti import Orientation
from datasets.raw.segments import CATEGORIES, MAKER, SNOMED, SegmentCode, match_segments
from datasets.raw.volume import Volume
from utils.errors import UserError
from utils.files import atomic_write

# In voxels, and of direction cosines.
TOLERANCE = 1e-3
SERIES_NUMBER = 900


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
    """
    assert volume.series is not None, "a SEG refers to a DICOM series"
    numbers = np.zeros(256, np.uint8)
    numbers[list(segments)] = np.arange(1, len(segments) + 1)
    stored = Orientation.of(volume.affine).file_view(numbers[labels]).T
    kind = SegmentationTypeValues.LABELMAP if labelmap else SegmentationTypeValues.BINARY
    with warnings.catch_warnings(action="ignore"):  # of values in the source's header
        seg = hd.seg.Segmentation(
            source_images=volume.series.slices,
            pixel_array=volume.series.geometry.with_array(np.ascontiguousarray(stored)),
            segmentation_type=kind,
            segment_descriptions=[
                _description(number, code, algorithm) for number, code in enumerate(segments.values(), start=1)
            ],
            series_instance_uid=hd.UID(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer=MAKER,
            manufacturer_model_name=algorithm.name,
            software_versions=algorithm.version,
            device_serial_number="none",
            omit_empty_frames=bool(stored.any()),  # highdicom writes all frames of an empty one, and says so
            content_label="SEGMENTATION",
            series_description=f"Segmentation by {algorithm.name}",
        )
        with atomic_write(path) as temporary:
            seg.save_as(temporary)


def open_seg(path: Path, image: SeriesSource, segments: Mapping[int, SegmentCode]) -> SeriesSource:
    """A SEG as source labels [columns, rows, slices] on its series; segments: label -> its code.

    Where segments overlap the higher label wins: a tumour is part of its organ. UserError if the SEG cannot be read,
    does not lie on the slices, or holds a segment that is no label.
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
            for number, label in sorted(matched.items(), key=lambda each: each[1]):
                part = seg.get_volume(segment_numbers=[number], combine_segments=True, relabel=True, dtype=np.uint8)
                array[part.match_geometry(geometry, tol=TOLERANCE).array > 0] = label
    except RuntimeError as error:
        raise UserError(f"{path}: does not lie on the slices of {image.path} ({error}); resample it") from None
    except (ValueError, AttributeError, KeyError, TypeError, OSError) as error:
        raise UserError(
            f"{path}: cannot be read as DICOM SEG ({' '.join(str(error).split())}); save it again"
        ) from None
    return source_of(geometry.with_array(array), image.series, path)


def _description(number: int, code: SegmentCode, algorithm: Algorithm) -> hd.seg.SegmentDescription:
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=code.name,
        segmented_property_category=Code(code.category, SNOMED, CATEGORIES[code.category]),
        segmented_property_type=_code(code),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=algorithm.name, family=codes.DCM.ArtificialIntelligence, version=algorithm.version
        ),
        anatomic_regions=[_code(code.region)] if code.region else None,
        display_color=hd.color.CIELabColor.from_rgb(*code.colour),
    )


def _code(code: SegmentCode) -> Code:
    return Code(code.value, code.scheme, code.meaning)
