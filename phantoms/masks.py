"""Real KiTS labels around which images are synthesised."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from datasets.labels import resize_labels
from datasets.raw.layout import Case
from datasets.raw.nifti import Orientation, open_nifti
from datasets.raw.volume import read_volume
from utils.errors import UserError
from utils.parallel import run_in_processes
from utils.progress import progress


@dataclass(frozen=True)
class LabelVolume:
    """labels: uint8 [Z, Y, X]; spacing: (z, y, x) in mm; affine, header: the file's."""

    labels: NDArray[np.uint8]
    spacing: tuple[float, float, float]
    affine: NDArray[np.float64]
    header: Any


@dataclass(frozen=True)
class Masks:
    """Which label volumes of a folder in the KiTS layout to use.

    slices: lowest and highest number of slices, None for any; tumour: the least tumour volume in ml.
    """

    folder: Path
    slices: tuple[int, int] | None = None
    tumour: float = 0.0

    def __post_init__(self) -> None:
        if self.slices is not None and not 1 <= self.slices[0] <= self.slices[1]:
            raise UserError(f"--slices {self.slices[0]} {self.slices[1]}: must be 1 <= LO <= HI")

    def paths(self, workers: int = 1) -> list[Path]:
        """The selected files; UserError if there are none, or if a file that must be read holds no KiTS labels."""
        found = sorted(self.folder.glob("case_*/segmentation.nii.gz"))
        numbered = [path for path in found if path.parent.name.removeprefix("case_").isdigit()]
        if not numbered:
            raise UserError(f"{self.folder}: holds no case_NNNNN/segmentation.nii.gz; give a folder of KiTS labels")
        results = run_in_processes(self.is_selected, numbered, workers)
        selected = dict(progress(results, "masks", total=len(numbered), unit="case"))
        paths = [path for path in numbered if selected[path]]
        if not paths:
            raise UserError(f"{self.folder}: no label volume has as many slices and as much tumour as that")
        return paths

    def is_selected(self, path: Path) -> bool:
        """Whether a label volume meets the conditions; its voxels are read only if a tumour volume is required."""
        if self.slices is not None:
            with open_nifti(path) as source:
                count = Orientation.of(source.affine).to_zyx(source.shape)[0]
            if not self.slices[0] <= count <= self.slices[1]:
                return False
        if not self.tumour:
            return True
        volume = read_labels(path)
        return float(np.count_nonzero(volume.labels == 2) * np.prod(volume.spacing)) >= 1000 * self.tumour


def read_labels(path: Path, size: int = 0) -> LabelVolume:
    """Read a KiTS label volume, its slices resized to size x size (0: not resized); UserError for other labels."""
    volume = read_volume(Case(path.parent.name, path, None), labels=(), with_label=False)
    low, high = int(volume.image.min()), int(volume.image.max())
    if low < 0 or high > 2 or volume.scale != 1:
        raise UserError(f"{path}: has labels {low} to {high}; KiTS labels are 0, 1 and 2")
    labels, spacing, affine = volume.image.astype(np.uint8), volume.spacing, volume.header.get_best_affine()
    if size and labels.shape[1:] != (size, size):
        step = (1.0, labels.shape[1] / size, labels.shape[2] / size)
        labels = np.stack([resize_labels(plane, (size, size)) for plane in labels])
        spacing = (spacing[0], spacing[1] * step[1], spacing[2] * step[2])
        # The volume's outer faces stay in place, so the centre of the first voxel moves.
        file_step = np.array([step[axis] for axis in Orientation.of(affine).axes])
        affine = affine @ nib.affines.from_matvec(np.diag(file_step), (file_step - 1) / 2)
    return LabelVolume(labels, spacing, affine, volume.header)
