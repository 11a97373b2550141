"""ACDC: right ventricle (1), myocardium (2) and left ventricle (3) on cine MR, two frames per patient.

O. Bernard et al.: Deep Learning Techniques for Automatic MRI Cardiac Multi-Structures Segmentation and
Diagnosis, IEEE Transactions on Medical Imaging 37(11), 2018.
"""

from __future__ import annotations

from pathlib import Path

from datasets.labels import LabelMap, one_class
from datasets.raw.layout import Case, Layout, find_nifti, make_case, nifti_stem, require_cases

EXPECTED = "patientNNN/patientNNN_frameNN.nii.gz with patientNNN/patientNNN_frameNN_gt.nii.gz"


def find(root: Path) -> list[Case]:
    """Every frame in `root` and in the folders below it (training/, testing/); each frame is a case."""
    found: dict[str, Case] = {}
    for path in sorted(root.rglob("patient*_frame*.nii*")):
        name = (nifti_stem(path) or "").removesuffix("_gt")
        if name and name not in found:
            image, label = find_nifti(path.parent, name), find_nifti(path.parent, f"{name}_gt")
            found[name] = make_case(name, image, label, f"{name}.nii.gz next to it")
    return require_cases(sorted(found.values(), key=lambda case: case.name), root, EXPECTED)


def layout(root: Path) -> Layout:
    names = ("rv", "myo", "lv")
    tasks = {name: one_class(name, label) for label, name in enumerate(names, start=1)}
    tasks["all"] = LabelMap("all", names, ((1,), (2,), (3,)), {"rv": (1,), "myo": (2,), "lv": (3,)})
    labels = {0: "background", 1: "right ventricle", 2: "myocardium", 3: "left ventricle"}
    return Layout(name="acdc", find=find, tasks=tasks, labels=labels, window=None)
