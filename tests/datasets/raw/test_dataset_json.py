"""dataset.json in its forms, and which cases, channels and segmentations follow from it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.raw import open_layout
from datasets.raw.cases import FoundCases
from datasets.raw.modality import is_ct, is_other
from tests.datasets.raw.test_finding import put
from utils.errors import UserError

LABELS = {"0": "background", "1": "kidney", "2": "tumor"}


def folder(root: Path, content: dict[str, Any], *files: str) -> Path:
    put(root, *files)
    (root / "dataset.json").write_text(json.dumps({"labels": LABELS, **content}))
    return root


def find(root: Path, channel: str | None = None) -> FoundCases:
    return open_layout("msd", root, channel=channel).find(root)


def nnunet(*names: str, channels: int = 1, part: str = "Tr") -> list[str]:
    images = [f"images{part}/{name}_{number:04d}.nii.gz" for name in names for number in range(channels)]
    return images + [f"labels{part}/{name}.nii.gz" for name in names]


IMAGE, LABEL = "./imagesTr/{}_0000.nii.gz", "./labelsTr/{}.nii.gz"


@pytest.mark.parametrize(
    "content",
    [
        {"modality": "CT"},
        {"modality": ["CT"]},
        {"modality": {"0": "CT"}},
        {"channel_names": {"CT": 0}, "file_ending": ".NII.GZ"},
        {"modality": "CT", "training": [{"image": IMAGE.format(n), "label": LABEL.format(n)} for n in "ab"]},
        {"modality": "CT", "training": [{"image": [IMAGE.format(n)], "label": [LABEL.format(n)]} for n in "ab"]},
        {"modality": "CT", "training": [{"image": IMAGE.format(n)} for n in "ab"]},
        {"modality": "CT", "training": [IMAGE.format(n) for n in "ab"]},
        {"modality": "CT", "training": [f"imagesTr/{n}.nii.gz" for n in "ab"]},
        {"modality": "CT", "dataset": {n: {"images": [IMAGE.format(n)], "label": LABEL.format(n)} for n in "ab"}},
        {"modality": "CT", "labels": ["background", "kidney", "tumor"]},
        {"modality": "CT", "labels": {"background": 0, "kidney": 1, "tumor": "2"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_forms_of_one_data_set(tmp_path: Path, content: dict[str, Any], mark: str) -> None:
    root = folder(tmp_path, content, *nnunet("a", "b"))
    (root / "dataset.json").write_text(mark + (root / "dataset.json").read_text(), encoding="utf-8")
    layout = open_layout("msd", root)
    found = layout.find(root)
    assert [(case.name, case.image.name, case.modality) for case in found] == [
        (name, f"{name}_0000.nii.gz", "CT") for name in "ab"
    ]
    assert all(case.label and case.label.parent.name == "labelsTr" for case in found)
    assert layout.window == (-200.0, 300.0) and layout.tasks.keys() == {"kidney", "tumor", "all"}
    assert found.left_out == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": 3}, "labels is 3; expected names"),
        ({"labels": {"a": 1, "A": 2}}, "names 'A' twice"),
        ({"labels": {"a": 300}}, "label 'a' must be from 0 to 255"),
        ({"labels": {"background": 0}}, "nothing but the background"),
        ({"modality": 5}, "modality is 5; expected channels"),
        ({"channel_names": {"1": "CT"}}, "channel_names is .* expected channels"),
        ({"training": "all"}, "training is 'all'; expected a list"),
        ({"training": [{"label": "x"}]}, r"training\[0\] is .* expected an image"),
        ({"training": [{"image": "a.nii", "label": 7}]}, r"training\[0\]\.label is 7"),
        ({"training": [{"image": "a.mha"}]}, "lists a.mha, .* SimpleITK"),
        ({"file_ending": ".nrrd"}, r"file_ending is '\.nrrd', and only .* SimpleITK: .*change file_ending"),
        ({"file_ending": ".png"}, r"file_ending is '\.png'"),
        ({"channel_names": {"0": "PET", "1": "CT"}}, r"holds the channels 0 \(PET\), 1 \(CT\); choose one, as in --ch"),
        ({"channel_names": {"0": "MRI", "1": "CT venous"}}, "choose one, as in --channel CT"),
    ],
    ids=str,
)
def test_what_cannot_be_understood_names_file_and_key(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    root = folder(tmp_path, content, *nnunet("a", channels=2))
    with pytest.raises(UserError, match=message) as refused:
        find(root)
    assert str(root / "dataset.json") in str(refused.value)


def test_every_item_that_is_wrong_is_named(tmp_path: Path) -> None:
    items = [{"image": f"{n}.nii", "label": f"labelsTr/{n}.nii.gz"} for n in "abc"]
    root = folder(tmp_path, {"training": items}, "a.nii", "b.nii", "c.nii", "labelsTr/b.nii.gz")
    with pytest.raises(UserError, match=r"labelsTr/a\.nii\.gz: is listed .*; .*labelsTr/c\.nii\.gz: is listed"):
        find(root)


class TestChannels:
    CHANNELS: ClassVar[dict[str, Any]] = {"channel_names": {"1": "CT", "0": "PET"}}

    @pytest.mark.parametrize(
        ("choice", "number", "window"), [("CT", 1, (-200, 300)), ("1", 1, (-200, 300)), ("pet", 0, None)]
    )
    def test_files_of_their_own(self, tmp_path: Path, choice: str, number: int, window: Any) -> None:
        root = folder(tmp_path, self.CHANNELS, *nnunet("a", "b", channels=2))
        layout = open_layout("msd", root, channel=choice)
        found = layout.find(root)
        assert [(case.image.name, case.channel) for case in found] == [
            (f"{name}_000{number}.nii.gz", None) for name in "ab"
        ]
        assert (layout.channel, layout.window) == (number, window)
        assert {case.modality for case in found} == {("PET", "CT")[number]}
        assert "other channels of the same images: 2" in "".join(found.notes)

    def test_in_one_file(self, tmp_path: Path) -> None:
        items = [{"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}]
        root = folder(tmp_path, {**self.CHANNELS, "training": items}, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz")
        (case,) = find(root, "CT")
        assert (case.name, case.channel, case.modality) == ("a", 1, "CT")

    def test_ct_first_needs_no_choice(self, tmp_path: Path) -> None:
        root = folder(tmp_path, {"channel_names": {"0": "CT", "1": "PET"}}, *nnunet("a", channels=2))
        assert [case.image.name for case in find(root)] == ["a_0000.nii.gz"]

    def test_a_channel_that_is_not_there(self, tmp_path: Path) -> None:
        root = folder(tmp_path, self.CHANNELS, *nnunet("a", channels=2))
        with pytest.raises(UserError, match=r"has no channel MR; choose one of 0 \(PET\), 1 \(CT\)"):
            find(root, "MR")
        with pytest.raises(UserError, match="--channel: is of --dataset msd alone, not of kits"):
            open_layout("kits", root, channel="CT")

    def test_two_channels_listed_as_two_cases_are_one(self, tmp_path: Path) -> None:
        items = [
            {"image": f"imagesTr/{name}_000{number}.nii.gz", "label": f"labelsTr/{name}.nii.gz"}
            for name in "ab"
            for number in range(2)
        ]
        root = folder(tmp_path, {"channel_names": ["CT", "PET"], "training": items}, *nnunet("a", "b", channels=2))
        found = find(root)
        assert [(case.name, case.image.name) for case in found] == [("a", "a_0000.nii.gz"), ("b", "b_0000.nii.gz")]
        assert "listed twice and read once: 2" in "".join(found.notes)


@pytest.mark.parametrize("images", ["imagesTr", "imagesTs"])
def test_numbered_patients_are_no_channels(tmp_path: Path, images: str) -> None:
    numbered = [f"{images}/patient_{number:04d}.nii.gz" for number in range(3)]
    found = find(folder(tmp_path, {"modality": "CT"}, *numbered))
    assert [(case.name, case.image.name) for case in found] == [(Path(p).name[:-7], Path(p).name) for p in numbered]
    labelled = [f"labels{images[-2:]}/patient_{number:04d}.nii.gz" for number in range(2)]
    assert [case.label is not None for case in find(put(tmp_path, *labelled))] == [True, True, False]
    folder(tmp_path, {"modality": {}})
    assert [case.label is not None for case in find(tmp_path)] == [True, True, False]


def test_more_files_than_dataset_json_has_channels_are_of_one_segmentation(tmp_path: Path) -> None:
    found = find(folder(tmp_path, {"modality": "CT"}, *nnunet("a", "b", channels=2)))
    assert [(case.name, case.image.name) for case in found] == [("a", "a_0000.nii.gz"), ("b", "b_0000.nii.gz")]
    assert "other channels of the same images: 2" in "".join(found.notes)


@pytest.mark.parametrize(
    ("name", "ct", "other"),
    [
        ("CT", True, False),
        ("ct_venous", True, False),
        ("CT1 (portal)", True, False),
        ("NCCT", True, False),
        ("PET/CT", False, False),
        ("PT", False, True),
        ("pet", False, True),
        ("T2 MR", False, True),
        ("MRI", False, True),
        ("FLAIR", False, False),
        ("spectral", False, False),
    ],
)
def test_a_modality_by_its_name(name: str, ct: bool, other: bool) -> None:
    assert (is_ct(name), is_other(name)) == (ct, other)


class TestNames:
    def test_items_of_one_file_name_are_named_by_their_folders(self, tmp_path: Path) -> None:
        items = [{"image": f"./p{n}/ct.nii.gz", "label": f"./p{n}/seg.nii.gz"} for n in range(3)]
        root = folder(
            tmp_path, {"training": items}, *(f"p{n}/{kind}.nii.gz" for n in range(3) for kind in ("ct", "seg"))
        )
        assert [case.name for case in find(root)] == ["p0_ct", "p1_ct", "p2_ct"]
        assert [case.patient for case in find(root)] == [None] * 3

    def test_test_images_do_not_replace_training_images(self, tmp_path: Path) -> None:
        root = folder(tmp_path, {}, *nnunet("a", "b"), "imagesTs/a_0000.nii.gz")
        cases = {case.name: case for case in find(root)}
        assert cases.keys() == {"a", "b", "imagesTs_a"}
        assert cases["a"].image.parent.name == "imagesTr" and cases["imagesTs_a"].label is None
        assert cases["imagesTs_a"].patient == "a"

    def test_test_images_with_segmentations_are_test_cases(self, tmp_path: Path) -> None:
        root = folder(tmp_path, {}, *nnunet("a", "b"), *nnunet("t", part="Ts"))
        assert [(case.name, case.part) for case in find(root)] == [("a", None), ("b", None), ("t", "test")]

    def test_the_same_item_twice(self, tmp_path: Path) -> None:
        item = {"image": IMAGE.format("a"), "label": LABEL.format("a")}
        root = folder(tmp_path, {"training": [item, item]}, *nnunet("a"), "labelsTr/other.nii.gz")
        assert "listed twice and read once: 1" in "".join(find(root).notes)
        root = folder(tmp_path, {"training": [item, {**item, "label": LABEL.format("other")}]})
        with pytest.raises(UserError, match=r"a_0000.* and .*a_0000.* are one image in two cases"):
            find(root)

    def test_two_images_of_one_segmentation_are_of_one_patient(self, tmp_path: Path) -> None:
        items = [{"image": f"{phase}.nii", "label": "seg.nii"} for phase in ("arterial", "venous")]
        root = folder(tmp_path, {"training": items}, "arterial.nii", "venous.nii", "seg.nii")
        assert [case.patient or case.name for case in find(root)] == ["arterial", "arterial"]

    def test_a_test_image_that_is_not_there_is_counted(self, tmp_path: Path) -> None:
        root = folder(tmp_path, {"training": [IMAGE.format("a")], "test": ["imagesTs/t.nii.gz"]}, *nnunet("a"))
        assert "listed in dataset.json, and not there: 1: imagesTs/t.nii.gz" in "".join(find(root).notes)


def test_a_label_named_as_the_task_of_every_label(tmp_path: Path) -> None:
    root = folder(tmp_path, {"labels": {"background": 0, "All": [1, 2], "tumor": 2}})
    with pytest.raises(UserError, match=r"dataset\.json: names a label 'all', .*; choose another"):
        open_layout("msd", root)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.sets(
        st.tuples(st.sampled_from(["Tr", "Ts"]), st.sampled_from(["a", "b", "A", "a_0000"]), st.integers(-1, 2)),
        min_size=1,
    ),
    st.integers(1, 2),
)
def test_every_file_of_an_nnunet_folder_is_in_one_case_or_named(
    files: set[tuple[str, str, int]], channels: int
) -> None:
    """Number -1 is the segmentation."""
    with tempfile.TemporaryDirectory() as place:
        paths = [
            f"labels{part}/{name}.nii.gz" if number < 0 else f"images{part}/{name}_{number:04d}.nii.gz"
            for part, name, number in files
        ]
        root = folder(Path(place), {"channel_names": ["CT", "PET"][:channels]}, *paths)
        try:
            found = find(root)
        except UserError as refused:
            expected = ("image is missing", "holds no case", "has the name", "are one image in two cases")
            assert any(reason in str(refused) for reason in expected)
            return
        assert len({case.name.lower() for case in found}) == len(found)
        used = [path for case in found for path in (case.image, case.label) if path]
        named = [path for paths in found.left_out.values() for path in paths]
        assert {root / path for path in paths} == {*used, *named} and len(set(used)) == len(used)
        for case in found:
            assert case.label is None or case.label.parent.name[-2:] == case.image.parent.name[-2:]
