"""LiTS: livers (1) and liver tumours (2) on CT, numbered pairs of files or one folder per case.

P. Bilic et al.: The Liver Tumor Segmentation Benchmark (LiTS), Medical Image Analysis 84, 2023
(arXiv 1901.04056).
"""

from __future__ import annotations

from pathlib import Path

from datasets.labels import organ_and_tumor
from datasets.raw.cases import Candidate, FoundCases, identify
from datasets.raw.layout import Layout
from datasets.raw.tree import nifti_stem, scan
from utils.errors import UserError

EXPECTED = "volume-N.nii with segmentation-N.nii, or case_NNNNN/volume.nii with case_NNNNN/segmentation.nii"


def find(root: Path) -> FoundCases:
    """The cases in `root` and in the folders below it, by number; image and label may lie in different folders."""
    tree = scan(root)
    found: dict[str, dict[str, Path]] = {"volume": {}, "segmentation": {}}
    for path in tree.files:
        kind, _, number = (nifti_stem(path) or "").partition("-")
        name = number or path.parent.name.removeprefix("case_")
        if kind in found and name.isdigit():
            other = found[kind].setdefault(name, path)
            if other is not path:
                raise UserError(f"{path}: case {name} is also in {other.parent}, as {other.name}; remove one of them")
    images, labels = found["volume"], found["segmentation"]
    if not images:  # What is named by its folder alone is named as KiTS names it.
        labels = {name: path for name, path in labels.items() if nifti_stem(path) != "segmentation"}
    candidates = [
        Candidate(name, images.get(name), labels.get(name), f"the volume of case {name}")
        for name in images.keys() | labels.keys()
    ]
    return identify(candidates, tree, EXPECTED)


def layout(root: Path) -> Layout:
    return Layout(
        name="lits",
        find=find,
        tasks=organ_and_tumor(),
        labels={0: "background", 1: "liver", 2: "tumor"},
        window=(-40.0, 160.0),
    )
