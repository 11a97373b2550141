"""KiTS19, KiTS21 and KiTS23: kidneys (1), their tumours (2) and cysts (3) on CT, one folder per case.

N. Heller et al.: The KiTS19 Challenge Data, 2019 (arXiv 1904.00445): no cysts; cases 210 to 299 have no segmentation.
N. Heller et al.: The KiTS21 Challenge, 2023 (arXiv 2307.01984): cysts too; the majority vote of the raters is
aggregated_MAJ_seg.nii.gz. KiTS23 names its files as KiTS19 does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.labels import organ_and_lesions
from datasets.raw.cases import Candidate, FoundCases, identify
from datasets.raw.label_values import TOLERANCE
from datasets.raw.layout import Layout
from datasets.raw.nifti import open_nifti
from datasets.raw.tree import EMPTY, Tree, is_fetched, nifti_stem, scan
from utils.errors import UserError

EXPECTED = "case_NNNNN/imaging.nii.gz with case_NNNNN/segmentation.nii.gz"
SEGMENTATIONS = ("segmentation", "aggregated_MAJ_seg")
# KiTS21 has the segmentations of every rater, and their union and intersection; KiTS23 those of every instance.
OTHER_VOTES = ("aggregated_OR_seg", "aggregated_AND_seg")
OF_RATERS = ("segmentations", "instances")
CYST = 3
# Half of the cases of KiTS23 have a cyst: among this many, one has.
PROBED = 20


def find(root: Path) -> FoundCases:
    """The cases in `root`, or in the nearest folders below it that hold any (a clone keeps them in data/)."""
    tree = scan(root)
    candidates = []
    beside: list[Path] = []
    for folder in _case_folders(tree):
        beside += [path for vote in OTHER_VOTES for path in tree.named.get(folder / vote, [])]
        beside += [path for name in OF_RATERS for path in tree.folders.get(folder / name, [])]
        image, label = tree.find(folder, "imaging"), tree.find(folder, *SEGMENTATIONS)
        if image or label:
            name = folder.name.removeprefix("case_")
            candidates.append(Candidate(name, image, label, "imaging.nii.gz next to it"))
        elif folder not in tree.left_out.get(EMPTY, []):
            tree.leave_out(EMPTY, folder)
    return identify(candidates, tree, EXPECTED, beside=beside)


def layout(root: Path) -> Layout:
    """With the cyst as a label, a task and a class of its own where the data has it, as of KiTS21."""
    lesions = {"tumor": 2} | ({"cyst": CYST} if _has_cysts(scan(root)) else {})
    return Layout(
        name="kits",
        find=find,
        tasks=organ_and_lesions(lesions),
        labels={0: "background", 1: "kidney"} | {label: name for name, label in lesions.items()},
        window=(-200.0, 300.0),
    )


def _case_folders(tree: Tree) -> list[Path]:
    folders = [folder for folder in tree.folders if folder.name.startswith("case_") and folder != tree.root]
    nearest = min((len(folder.parts) for folder in folders), default=0)
    return [folder for folder in folders if len(folder.parts) == nearest]


def _has_cysts(tree: Tree) -> bool:
    """By the name of a segmentation, or by the voxels of `PROBED` of them.

    A cyst in none of these is not lost: as an unknown label it is refused when its case is read.
    """
    labels = [label for folder in _case_folders(tree) if (label := tree.find(folder, *SEGMENTATIONS))]
    if any(nifti_stem(label) == SEGMENTATIONS[1] for label in labels):
        return True
    step = max(1, len(labels) // PROBED)
    return any(is_fetched(label) and _holds_cyst(label) for label in labels[::step][:PROBED])


def _holds_cyst(path: Path) -> bool:
    """Slab by slab, and looking no further than the first cyst."""
    try:
        with open_nifti(path) as source:
            return any(_is_cyst(slab, *source.scaling).any() for _, slab in source.slabs())
    except UserError:
        return False  # reading the case will say what is wrong with it


def _is_cyst(slab: NDArray[Any], slope: float, intercept: float) -> NDArray[np.bool_]:
    """Where a stored slab is a cyst; without scaling no number is converted, in a tenth of the time."""
    if slab.dtype.kind in "iu" and (slope, intercept) == (1.0, 0.0):
        return np.asarray(slab == CYST)
    return np.asarray(np.abs(slab * slope + intercept - CYST) < TOLERANCE)
