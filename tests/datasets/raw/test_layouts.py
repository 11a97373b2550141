"""The layouts: which cases they find, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from datasets.raw import LAYOUTS, open_layout
from datasets.raw.find_cases import find_cases
from datasets.raw.layout import Layout
from datasets.raw.nifti import Source
from tests.contracts.layouts import IMAGE, LABEL, LayoutContract
from tests.data import KITS, LITS, kits_case, save
from utils.errors import UserError


class TestKits(LayoutContract):
    name = "kits"
    names = ("00003", "00012", "00210")
    tasks = frozenset({"organ", "tumor", "all"})
    window = (-200, 300)

    def build(self, root: Path) -> None:
        save(IMAGE, root / "case_00012" / "imaging.nii", KITS)
        save(LABEL, root / "case_00012" / "segmentation.nii", KITS)
        save(IMAGE, root / "case_00003" / "imaging.nii.gz", KITS)
        save(LABEL, root / "case_00003" / "segmentation.nii.gz", KITS)
        save(IMAGE, root / "case_00210" / "imaging.nii.gz", KITS)
        (root / "kits.json").write_text("[]")

    def test_a_clone_keeps_the_cases_in_data(self, tmp_path: Path) -> None:
        kits_case(tmp_path / "data", 5)
        assert [case.name for case in self.layout(tmp_path).find(tmp_path)] == ["00005"]


class TestLits(LayoutContract):
    name = "lits"
    names = ("2", "12", "131")
    tasks = frozenset({"organ", "tumor", "all"})
    window = (-40, 160)

    def build(self, root: Path) -> None:
        save(IMAGE, root / "Training Batch 1" / "volume-12.nii", LITS)
        save(LABEL, root / "Training Batch 1" / "segmentation-12.nii", LITS)
        save(IMAGE, root / "Training Batch 2" / "volume-2.nii.gz", LITS)
        save(LABEL, root / "Training Batch 2" / "segmentation-2.nii.gz", LITS)
        save(IMAGE, root / "volume-131.nii", LITS)

    def test_volumes_and_segmentations_in_folders_of_their_own(self, tmp_path: Path) -> None:
        save(IMAGE, tmp_path / "volume_pt1" / "volume-0.nii", LITS)
        save(LABEL, tmp_path / "segmentations" / "segmentation-0.nii", LITS)
        (case,) = self.layout(tmp_path).find(tmp_path)
        assert (case.name, case.image.name, case.label and case.label.name) == (
            "0",
            "volume-0.nii",
            "segmentation-0.nii",
        )

    def test_the_same_case_twice(self, tmp_path: Path) -> None:
        self.build(tmp_path)
        save(IMAGE, tmp_path / "volume-12.nii", LITS)
        with pytest.raises(UserError, match="case 12 is also in"):
            self.layout(tmp_path).find(tmp_path)


class TestLitsInFolders(LayoutContract):
    name = "lits"
    names = ("00002", "00012", "00131")
    tasks = frozenset({"organ", "tumor", "all"})
    window = (-40, 160)

    def build(self, root: Path) -> None:
        for name in self.names:
            save(IMAGE, root / f"case_{name}" / "volume.nii", LITS)
        for name in self.names[:2]:
            save(LABEL, root / f"case_{name}" / "segmentation.nii", LITS)


class TestAcdc(LayoutContract):
    name = "acdc"
    names = ("patient001_frame01", "patient001_frame12", "patient101_frame01")
    tasks = frozenset({"rv", "myo", "lv", "all"})

    def build(self, root: Path) -> None:
        first, second = root / "training" / "patient001", root / "testing" / "patient101"
        for frame in ("01", "12"):
            save(IMAGE, first / f"patient001_frame{frame}.nii.gz", LITS)
            save(LABEL, first / f"patient001_frame{frame}_gt.nii.gz", LITS)
        save(IMAGE, first / "patient001_4d.nii.gz", LITS)
        save(IMAGE, second / "patient101_frame01.nii.gz", LITS)


class TestHeart(LayoutContract):
    name = "heart"
    names = ("la_003", "la_004", "la_030")
    tasks = frozenset({"left_atrium", "organ", "all"})
    description: ClassVar[dict[str, Any]] = {
        "labels": {"0": "background", "1": "left atrium"},
        "modality": {"0": "MRI"},
    }

    def build(self, root: Path) -> None:
        training = []
        for name in self.names[:2]:
            save(IMAGE, root / "imagesTr" / f"{name}.nii.gz", LITS)
            save(LABEL, root / "labelsTr" / f"{name}.nii.gz", LITS)
            training.append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"})
        save(IMAGE, root / "imagesTs" / f"{self.names[2]}.nii.gz", LITS)
        lists = {"training": training, "test": [f"./imagesTs/{self.names[2]}.nii.gz"]}
        (root / "dataset.json").write_text(json.dumps(self.description | lists))

    def test_a_listed_label_that_is_missing(self, tmp_path: Path) -> None:
        self.build(tmp_path)
        (tmp_path / "labelsTr" / "la_003.nii.gz").unlink()
        with pytest.raises(UserError, match=r"labelsTr/la_003\.nii\.gz: is listed in dataset\.json but missing"):
            self.layout(tmp_path).find(tmp_path)


class TestMsd(TestHeart):
    name = "msd"
    tasks = frozenset({"liver", "liver_tumor", "all"})
    window = (-200, 300)
    description: ClassVar[dict[str, Any]] = {
        "labels": {"0": "background", "1": "liver", "2": "Liver tumor"},
        "modality": {"0": "CT"},
    }


class TestNnunet(LayoutContract):
    name = "msd"
    names = ("BRATS_001", "BRATS_002", "BRATS_009")
    tasks = frozenset({"whole", "core", "all"})

    def build(self, root: Path) -> None:
        for name in self.names:
            folder = root / ("imagesTs" if name == self.names[2] else "imagesTr")
            for channel in ("0000", "0001"):
                save(IMAGE, folder / f"{name}_{channel}.nii.gz", LITS)
        for name in self.names[:2]:
            save(LABEL, root / "labelsTr" / f"{name}.nii.gz", LITS)
        content = {
            "channel_names": {"0": "FLAIR", "1": "T1w"},
            "labels": {"background": 0, "whole": [1, 2], "core": 2},
            "file_ending": ".nii.gz",
        }
        (root / "dataset.json").write_text(json.dumps(content))

    def test_overlapping_regions_become_disjoint_classes(self, tmp_path: Path) -> None:
        self.build(tmp_path)
        task = self.layout(tmp_path).label_map("all")
        assert task.classes == ("label_1", "core")
        assert task.regions == {"whole": (1, 2), "core": (2,)}


class TestList(LayoutContract):
    name = "list"
    names = ("ct_1", "ct_2", "ct_9")
    tasks = frozenset({"organ", "tumor", "all"})
    window = (-50, 150)

    def build(self, root: Path) -> None:
        for name in self.names:
            save(IMAGE, root / "images" / f"{name}.nii.gz", LITS)
        for name in self.names[:2]:
            save(LABEL, root / "masks" / f"of {name}.nii", LITS)
        rows = [f"images/{name}.nii.gz,masks/of {name}.nii," for name in self.names[:2]]
        (root / "cases.csv").write_text("\n".join(["image,label,patient", *rows, f"images/{self.names[2]}.nii.gz,,"]))

    def layout(self, root: Path) -> Layout:
        return open_layout("list", root, ("1=organ", "2=tumor"), self.window)

    def test_a_file_or_its_folder(self, tmp_path: Path) -> None:
        self.build(tmp_path)
        find = self.layout(tmp_path).find
        assert find(tmp_path / "cases.csv") == find(tmp_path)


class TestKitsWithCysts(LayoutContract):
    """KiTS21 tells by the names of its segmentations, KiTS23 only by their voxels."""

    name = "kits"
    names = ("00000", "00001", "00400")
    tasks = frozenset({"organ", "tumor", "cyst", "all"})
    window = (-200, 300)
    segmentation = "aggregated_MAJ_seg"
    cyst = 0

    def build(self, root: Path) -> None:
        other = LABEL.copy()
        other[0, 0, 0] = self.cyst
        for name, label in zip(self.names, (LABEL, other, None), strict=True):
            save(IMAGE, root / f"case_{name}" / "imaging.nii.gz", KITS)
            if label is not None:
                save(label, root / f"case_{name}" / f"{self.segmentation}.nii.gz", KITS)

    def test_the_cyst_is_a_part_of_the_organ(self, tmp_path: Path) -> None:
        self.build(tmp_path)
        layout = self.layout(tmp_path)
        mask = np.arange(4, dtype=np.uint8)
        expected = {"organ": [0, 1, 1, 1], "tumor": [0, 0, 1, 0], "cyst": [0, 0, 0, 1], "all": [0, 1, 2, 3]}
        assert {name: task.encode(mask).tolist() for name, task in layout.tasks.items()} == expected
        assert layout.label_map("all").regions == {"organ": (1, 2, 3), "tumor": (2,), "cyst": (3,)}
        assert layout.labels[3] == "cyst"


class TestKits23(TestKitsWithCysts):
    segmentation = "segmentation"
    cyst = 3


def test_cysts_are_looked_for_slab_by_slab_and_not_to_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label = np.zeros((40, 256, 256), np.uint8)
    label[0] = 3
    save(label, kits_case(tmp_path, 0) / "segmentation.nii.gz", LITS)
    read, slabs = Source.slabs, []

    def watched(source: Source) -> Iterator[tuple[int, Any]]:
        for start, slab in read(source):
            slabs.append(slab.shape[2])
            yield start, slab

    monkeypatch.setattr(Source, "slabs", watched)
    assert "cyst" in open_layout("kits", tmp_path).tasks
    assert len(slabs) == 1 and slabs[0] < 40
    assert len(find_cases(tmp_path, "kits")) == 1 and len(slabs) == 1


def test_tasks_of_organ_and_tumor(tmp_path: Path) -> None:
    mask = np.array([0, 1, 2], np.uint8)
    expected = {"organ": [0, 1, 1], "tumor": [0, 0, 1], "all": [0, 1, 2]}
    for name, classes in expected.items():
        task = open_layout("kits", tmp_path).label_map(name)
        assert task.encode(mask).tolist() == classes
        assert task.target(mask).tolist() == [index > 0 for index in classes]
        assert type(task).from_dict(json.loads(json.dumps(task.to_dict()))) == task
    assert task.regions == {"organ": (1, 2), "tumor": (2,)}


def test_heart_knows_its_task_by_the_published_name(tmp_path: Path) -> None:
    heart = open_layout("heart", tmp_path)
    assert heart.label_map("organ") == heart.label_map("left_atrium")


def test_a_wrong_dataset_names_the_others(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=", ".join(LAYOUTS)):
        open_layout("brain", tmp_path)
