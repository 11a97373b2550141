"""Which cases of other data are scored, and in which labels and channel."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from datasets.labels import one_class
from engine.benchmark.elsewhere import labelled_cases
from engine.benchmark.runs import OtherData
from tests.data import ct_and_label, oriented, save
from utils.errors import UserError

TUMOR = one_class("tumor", 2)


def test_raw_cases_are_read_in_the_channel_and_the_labels_of_the_networks(tmp_path: Path) -> None:
    image, label = ct_and_label()
    stored = np.asanyarray(oriented(image, "LPS").dataobj)
    (tmp_path / "imagesTr").mkdir()
    both = nib.Nifti1Image(np.stack([stored, stored + 1], axis=-1), oriented(image, "LPS").affine)
    nib.save(both, tmp_path / "imagesTr" / "a.nii.gz")
    save(np.array([0, 2, 1], np.uint8)[label], tmp_path / "labelsTr" / "a.nii.gz", "LPS")
    content = {
        "modality": {"0": "T1", "1": "T2"},
        "labels": {"0": "background", "1": "tumor", "2": "organ"},
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    (case,) = labelled_cases(OtherData("a", tmp_path), "msd", TUMOR, None, 1)
    assert np.array_equal(case.image, image + 1) and np.array_equal(case.label == 2, label == 2)


def test_raw_cases_of_a_list_are_to_be_cut_first(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"what do the labels of a list mean\? cut slices of it with SliceMaker"):
        labelled_cases(OtherData("a", tmp_path), "list", one_class("organ", 1), None, None)
