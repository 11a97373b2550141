"""KiTS19: kidneys (1) and kidney tumours (2) on CT, one folder per case.

N. Heller et al.: The KiTS19 Challenge Data, 2019 (arXiv 1904.00445). Cases 210 to 299 have no segmentation.
"""

from __future__ import annotations

from pathlib import Path

from datasets.labels import organ_and_tumor
from datasets.raw.layout import Case, Layout, find_nifti, make_case, require_cases

EXPECTED = "case_NNNNN/imaging.nii.gz with case_NNNNN/segmentation.nii.gz"


def find(root: Path) -> list[Case]:
    """The cases in `root`, or one folder below: a clone of the challenge's repository has them in data/."""
    cases = []
    for folder in sorted(root.glob("case_*")) or sorted(root.glob("*/case_*")):
        image, label = find_nifti(folder, "imaging"), find_nifti(folder, "segmentation")
        if image or label:
            cases.append(make_case(folder.name.removeprefix("case_"), image, label, "imaging.nii.gz next to it"))
    return require_cases(cases, root, EXPECTED)


def layout(root: Path) -> Layout:
    return Layout(
        name="kits",
        find=find,
        tasks=organ_and_tumor(),
        labels={0: "background", 1: "kidney", 2: "tumor"},
        window=(-200.0, 300.0),
    )
