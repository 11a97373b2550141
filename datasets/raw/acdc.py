"""ACDC: right ventricle (1), myocardium (2) and left ventricle (3) on cine MR, two frames per patient.

O. Bernard et al.: Deep Learning Techniques for Automatic MRI Cardiac Multi-Structures Segmentation and
Diagnosis, IEEE Transactions on Medical Imaging 37(11), 2018.
"""

from __future__ import annotations

import re
from pathlib import Path

from datasets.labels import LabelMap, one_class
from datasets.raw.cases import Candidate, FoundCases, identify
from datasets.raw.layout import Layout
from datasets.raw.tree import nifti_stem, scan

EXPECTED = "patientNNN/patientNNN_frameNN.nii.gz with patientNNN/patientNNN_frameNN_gt.nii.gz"
FRAME = re.compile(r"patient.*_frame.*")
# All frames of a patient, two of which are files of their own.
SERIES = re.compile(r"patient.*_4d")


def find(root: Path) -> FoundCases:
    """Every frame in `root` and in the folders below it (training/, testing/); each frame is a case."""
    tree = scan(root)
    candidates = []
    for path in tree.files:
        stem = nifti_stem(path) or ""
        name = stem.removesuffix("_gt")
        if not FRAME.fullmatch(name):
            continue
        image = tree.find(path.parent, name)
        if stem == name or image is None:
            label = path if stem != name else tree.find(path.parent, f"{name}_gt")
            candidates.append(Candidate(name, image, label, f"{name}.nii.gz next to it"))
    beside = [path for path in tree.files if SERIES.fullmatch(nifti_stem(path) or "")]
    return identify(candidates, tree, EXPECTED, beside=beside)


def layout(root: Path) -> Layout:
    names = ("rv", "myo", "lv")
    tasks = {name: one_class(name, label) for label, name in enumerate(names, start=1)}
    tasks["all"] = LabelMap("all", names, ((1,), (2,), (3,)), {"rv": (1,), "myo": (2,), "lv": (3,)})
    labels = {0: "background", 1: "right ventricle", 2: "myocardium", 3: "left ventricle"}
    return Layout(name="acdc", find=find, tasks=tasks, labels=labels, window=None)
