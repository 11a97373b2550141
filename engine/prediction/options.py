"""What a user chooses for a prediction's files. Nothing heavy is imported, for `--help` should answer at once."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Literal

from datasets.raw.tree import nifti_stem
from utils.numbers import NonNegativeInt
from utils.options import option


@dataclass(frozen=True)
class OutputOptions:
    """files"""

    inpath: Path = option(
        MISSING, "a .nii or .nii.gz file, a folder, or a CSV file with a column image", identity=False
    )
    outpath: Path = option(
        MISSING, "folder to write <case>.nii.gz to, or, for one case, the .nii or .nii.gz file", identity=False
    )
    largest_component: NonNegativeInt = option(
        0, "keep the N largest connected components; 1 if N is left out, 0: all", nargs="?", const=1, metavar="N"
    )
    overwrite: bool = option(False, "predict cases again that are done already", identity=False)
    probabilities: Literal["npz", "nifti"] | None = option(
        None,
        "write each class's probabilities too; npz, also if left out: as nnU-Net's --save_probabilities does; nifti: "
        "<case>_probabilities.nii.gz",
        identity=False,
        nargs="?",
        const="npz",
    )
    preview: bool = option(
        False, "write <case>.png: three slices with contours, first the one with most foreground", identity=False
    )

    @property
    def is_one_file(self) -> bool:
        """Whether `outpath` names the file to write, not a folder."""
        return nifti_stem(self.outpath) is not None and not self.outpath.is_dir()
