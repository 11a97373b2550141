"""Anyone's files in a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets.raw import open_layout
from datasets.raw.case_list import find, parse_labels
from tests.datasets.raw.test_finding import put
from utils.errors import UserError


def table(root: Path, text: str, encoding: str = "utf-8") -> Path:
    put(root, "p1/ct.nii.gz", "p1/seg.nii.gz", "p2/ct.nii.gz", "p2/seg.nii.gz")
    (root / "own.csv").write_text(text, encoding=encoding)
    return root / "own.csv"


ROWS = "p1/ct.nii.gz,p1/seg.nii.gz,one,train\np2/ct.nii.gz,p2/seg.nii.gz,two,Validation\n"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_what_a_spreadsheet_writes(tmp_path: Path, separator: str, encoding: str) -> None:
    text = ("image,label,patient,split\r\n" + ROWS.replace("\n", "\r\n") + ",,,\r\n").replace(",", separator)
    cases = find(table(tmp_path, text, encoding))
    assert [(case.name, case.patient, case.part) for case in cases] == [
        ("p1_ct", "one", "train"),
        ("p2_ct", "two", "val"),
    ]
    assert cases[0].image == tmp_path / "p1/ct.nii.gz"


def test_absolute_paths_and_cases_without_a_segmentation(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "scan.nii")
    file = table(tmp_path / "here", f"label,image\n,{tmp_path}/elsewhere/scan.nii\np1/seg.nii.gz,p1/ct.nii.gz")
    assert [(case.name, case.label is None, case.patient) for case in find(file)] == [
        ("ct", False, None),
        ("scan", True, None),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,lable\np1/ct.nii.gz,x", "unknown column 'lable'; expected image, label, patient, split"),
        ("label,patient\n", "expected the columns image"),
        ("image,image\n", "expected the columns image"),
        ("", "expected the columns image"),
        ("image,label\np1/ct.nii.gz,p1/seg.nii.gz,x", "line 2 has 3 cells for 2 columns"),
        ("image,label\np1/no.nii,\np9/ct.nii,", r"line 2: its image is missing: .*no\.nii .*; line 3: .*p9/ct\.nii"),
        ("image,label\np1/ct.nii.gz,p1/no.nii", r"line 2: .*p1/no\.nii does not exist"),
        ("image,label\np1/ct.mha,", "line 2: .* SimpleITK"),
        ("image,label\np1/ct.png,", r"line 2: .*ct\.png is not a \.nii"),
        ("image,label\n,p1/seg.nii.gz", "line 2: names no image"),
        ("image,label\np1/ct.nii.gz,p1/ct.nii.gz", "is both image and label"),
        ("image,split\np1/ct.nii.gz,tain", "line 2: split is 'tain', not train, val or test"),
        ('image,label\n"p1/ct.nii.gz,', "is no table"),
        ("image,label\np1/ct.nii.gz,p1/seg.nii.gz\np1/ct.nii.gz,p2/seg.nii.gz", "one image in two cases"),
        ("image,label\n", "holds no case"),
    ],
    ids=str,
)
def test_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find(table(tmp_path, text))


def test_labels() -> None:
    assert parse_labels(["1=Organ", "2=tumor", "3=Big vessel"]) == {
        "organ": (1, 2), "tumor": (2,), "big_vessel": (3,)
    }  # fmt: skip
    assert parse_labels(["1,2=liver", "2=tumor"]) == {"liver": (1, 2), "tumor": (2,)}
    for wrong in ("organ=1", "1", "0=organ", "300=organ", "="):
        with pytest.raises(UserError, match=f"--labels {wrong}: "):
            parse_labels([wrong])
    with pytest.raises(UserError, match="the name a is taken"):
        parse_labels(["1=a", "2=A"])


def test_options_belong_to_the_list(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="what do the labels mean"):
        open_layout("list", tmp_path)
    with pytest.raises(UserError, match="--window 3 2: the first number must be the lower one"):
        open_layout("list", tmp_path, ["1=a"], (3, 2))
    for options in ({"labels": ["1=organ"]}, {"window": (0, 1)}):
        with pytest.raises(UserError, match=r"is of --dataset list alone, not of kits"):
            open_layout("kits", tmp_path, **options)  # type: ignore[arg-type]


def test_a_label_named_as_the_task_of_every_label() -> None:
    with pytest.raises(UserError, match=r"--labels: names a label 'all', .*; choose another"):
        open_layout("list", Path("unused"), ("1=organ", "2=All"))
