"""Predictions as DICOM SEG, next to the NIfTI files, with the network's name and weights in them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.raw.dicom_seg import Algorithm, write_dicom_seg
from datasets.raw.layout import Case
from datasets.raw.segments import segments_of
from datasets.raw.volume import Volume
from engine.segmenter import Segmenter
from utils.errors import UserError


class SegFiles:
    """Writes the SEG of each prediction of a segmenter."""

    def __init__(self, segmenter: Segmenter, version: str, labelmap: bool, cases: Iterable[Case]) -> None:
        """version: of the network; labelmap: as LABELMAP, not BINARY. UserError if one of the cases is no series."""
        self.labelmap = labelmap
        self.segments = segments_of(segmenter.dataset, segmenter.label_map)
        name = f"{segmenter.model} ({segmenter.dataset}, {segmenter.label_map.name})"
        self.algorithm = Algorithm(name, version)
        if other := next((case for case in cases if not case.files), None):
            raise UserError(f"{other.image}: is no DICOM series, to which a SEG refers; leave out --dicom_seg")

    def write(self, path: Path, labels: NDArray[np.uint8], volume: Volume) -> None:
        """labels: the source's, [Z, Y, X]."""
        write_dicom_seg(path, labels, volume, self.segments, self.algorithm, labelmap=self.labelmap)
