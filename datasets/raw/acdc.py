"""ACDC: right ventricle (1), myocardium (2) and left ventricle (3) on cine MR, two frames a patient.

O. Bernard et al.: Deep Learning Techniques for Automatic MRI Cardiac Multi-Structures Segmentation and
Diagnosis, IEEE Transactions on Medical Imaging 37(11), 2018.
"""

from __future__ import annotations

from pathlib import Path

from datasets.labels import LabelMap, single
from datasets.raw.layout import Case, Layout, nifti, pair, some, stem

EXPECTED = "patientNNN/patientNNN_frameNN.nii.gz with patientNNN/patientNNN_frameNN_gt.nii.gz"


def find(root: Path) -> list[Case]:
    """Every frame in `root` and the folders below it (training/, testing/), each a case of its own."""
    found: dict[str, Case] = {}
    for path in sorted(root.rglob("patient*_frame*.nii*")):
        name = (stem(path) or "").removesuffix("_gt")
        if name and name not in found:
            image, label = nifti(path.parent, name), nifti(path.parent, f"{name}_gt")
            found[name] = pair(name, image, label, f"{name}.nii.gz beside it")
    return some(sorted(found.values(), key=lambda case: case.name), root, EXPECTED)


def layout(root: Path) -> Layout:
    names = ("rv", "myo", "lv")
    tasks = {name: single(name, label) for label, name in enumerate(names, start=1)}
    tasks["all"] = LabelMap("all", names, ((1,), (2,), (3,)), {"rv": (1,), "myo": (2,), "lv": (3,)})
    labels = {0: "background", 1: "right ventricle", 2: "myocardium", 3: "left ventricle"}
    return Layout(name="acdc", find=find, tasks=tasks, labels=labels, window=None)
