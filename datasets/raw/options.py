"""What a user chooses for files that are not as they should be. Nothing heavy is imported, for `--help`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from utils.errors import UserError
from utils.numbers import Number
from utils.options import option


@dataclass(frozen=True)
class ListOptions:
    """lists: of --dataset list, what its CSV file does not say"""

    labels: tuple[str, ...] = option((), "what the labels mean, as in 1=organ 2=tumor", metavar="LABEL=NAME")
    window: tuple[Number, Number] | None = option(
        None,
        "CT, seen in this window in HU; to score, the one that the network was trained with (default: MR, by "
        "percentiles; to score, as the network)",
        metavar=("LO", "HI"),
    )


@dataclass(frozen=True)
class IntensityOptions:
    """intensities"""

    any_intensity: bool = option(
        False,
        "take images that can't be in HU as they are; voxels that are NaN or infinite get the lowest finite value",
        identity=False,
    )


@dataclass(frozen=True)
class ReadingOptions(IntensityOptions):
    """files that are not as they should be"""

    label_geometry: Literal["header", "array"] | None = option(
        None,
        "where the headers of image and segmentation differ in orientation. header: turn the segmentation by its "
        "header; array: take its voxels as they are (default: refuse the case)",
        identity=False,
    )


@dataclass(frozen=True)
class DicomOptions:
    """DICOM"""

    series: str | None = option(None, "SeriesInstanceUID of the only series to read (default: all)", metavar="UID")
    dicom_seg: bool = option(False, "write <case>_seg.dcm too, a DICOM Segmentation that lies on its series")
    labelmap: bool = option(False, "of --dicom_seg: as LABELMAP (2024) in place of BINARY, which every viewer reads")

    def __post_init__(self) -> None:
        if self.labelmap and not self.dicom_seg:
            raise UserError("--labelmap: is a kind of DICOM SEG; add --dicom_seg")


AS_IT_SHOULD_BE = ReadingOptions()
