"""Which segmentation is a series', and what its segments are called."""

from __future__ import annotations

import shutil
from pathlib import Path

import pydicom
import pytest

from datasets.labels import organ_and_tumor
from datasets.raw import dicom_series, open_layout
from datasets.raw.case_list import layout as list_layout
from datasets.raw.cases import FoundCases
from datasets.raw.segments import match_segments, segment_code, segments_of
from datasets.raw.volume import read_volume
from tests.data import ct_and_label
from tests.dicom import write_seg, write_series
from utils.errors import UserError

SEG = Path("x.dcm")
IMAGE, LABEL = ct_and_label((6, 20, 24))


def find(root: Path) -> FoundCases:
    return dicom_series.find(root, labels=True)


def edit(path: Path, **values: object) -> Path:
    header = pydicom.dcmread(path)
    for name, value in values.items():
        setattr(header, name, value)
    header.save_as(path)
    return path


def read(root: Path) -> None:
    layout = open_layout("kits", root)
    read_volume(find(root)[0], layout.labels, segments=layout.segments)


class TestWhichSegmentation:
    def test_the_one_that_refers_to_the_series(self, tmp_path: Path) -> None:
        for seed, name in enumerate("ab"):
            write_series(tmp_path / name, IMAGE, seed=seed)
        seg = write_seg(tmp_path / "results" / "x.dcm", LABEL, tmp_path / "b")
        assert [case.label for case in find(tmp_path)] == [None, seg]
        assert [case.label for case in dicom_series.find(tmp_path)] == [None, None]

    def test_else_the_only_one_in_its_frame_of_reference(self, tmp_path: Path) -> None:
        write_series(tmp_path / "a", IMAGE)
        seg = edit(write_seg(tmp_path / "x.dcm", LABEL, tmp_path / "a"), ReferencedSeriesSequence=[])
        assert find(tmp_path)[0].label == seg

    def test_two_are_refused(self, tmp_path: Path) -> None:
        write_series(tmp_path / "a", IMAGE)
        for name in ("x.dcm", "y.dcm"):
            write_seg(tmp_path / name, LABEL, tmp_path / "a")
        with pytest.raises(UserError, match=r"x\.dcm and .*y\.dcm are both segmentations of .*a; leave one of them"):
            find(tmp_path)

    def test_copies_of_slices_are_read_once(self, tmp_path: Path) -> None:
        write_series(tmp_path / "a", IMAGE)
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        (case,) = found = find(tmp_path)
        assert len(case.files) == len(IMAGE)
        assert "left out, copies of slices that are read already: 6" in found.notes[0]

    def test_a_patient_stays_together_without_being_named(self, tmp_path: Path) -> None:
        for seed, name in enumerate("abc"):
            write_series(tmp_path / name, IMAGE, seed=seed)
        for path in (tmp_path / "c").iterdir():
            edit(path, PatientID="P-78")
        assert [(case.name, case.patient) for case in find(tmp_path)] == [("a", None), ("b", "a"), ("c", None)]


class TestASegmentationThatDoesNotFit:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"FrameOfReferenceUID": "1.2.3"}, "in another frame of reference"),
            ({"PixelData": b""}, "cannot be read as DICOM SEG"),
        ],
        ids=str,
    )
    def test_it_is_named(self, tmp_path: Path, values: dict[str, object], message: str) -> None:
        write_series(tmp_path / "a", IMAGE)
        edit(write_seg(tmp_path / "x.dcm", LABEL, tmp_path / "a"), **values)
        with pytest.raises(UserError, match=rf"x\.dcm: .*{message}"):
            read(tmp_path)

    def test_one_on_other_slices(self, tmp_path: Path) -> None:
        write_series(tmp_path / "a", IMAGE)
        write_seg(tmp_path / "x.dcm", LABEL, tmp_path / "a")
        for path in (tmp_path / "a").iterdir():
            header = pydicom.dcmread(path)
            edit(path, ImagePositionPatient=[header.ImagePositionPatient[0] + 0.3, *header.ImagePositionPatient[1:]])
        with pytest.raises(UserError, match="does not lie on the slices of"):
            read(tmp_path)

    def test_probabilities(self, tmp_path: Path) -> None:
        write_series(tmp_path / "a", IMAGE)
        seg = write_seg(tmp_path / "x.dcm", LABEL, tmp_path / "a")
        values = {"SegmentationFractionalType": "PROBABILITY", "MaximumFractionalValue": 1}
        edit(seg, SegmentationType="FRACTIONAL", **values)
        with pytest.raises(UserError, match="save it as BINARY or LABELMAP"):
            read(tmp_path)


class TestNamesAndCodes:
    def test_a_tumour_is_in_the_organ_of_its_data_set(self) -> None:
        for dataset, organ, value in (("kits", "kidney", "64033007"), ("lits", "liver", "10200004")):
            for task in ("tumor", "all"):
                code = segments_of(dataset, organ_and_tumor()[task])[2]
                assert (code.name, code.value) == (f"{organ} tumor", "108369006")
                assert code.region is not None and code.region.value == value
        assert segments_of("kits", organ_and_tumor()["organ"])[1].name == "kidney"

    def test_names_of_a_list(self) -> None:
        segments = list_layout(["1=liver", "2=tumor", "3=shunt of mine"], None).segments
        assert segments[2].region == segments[1]
        assert (segments[3].scheme, segments[3].name) == ("99HLFD", "shunt_of_mine")
        assert len(segments[3].value) <= 16
        assert list_layout(["1=organ", "2=tumor"], None).segments[1].name == "organ"

    def test_a_long_name_of_its_own_does_not_collide(self) -> None:
        names = ("left accessory renal artery", "left accessory renal vein")
        assert len({segment_code("list", name).value for name in names}) == 2

    def test_segments_are_matched_by_code_and_then_by_name(self) -> None:
        kits = segments_of("kits", organ_and_tumor()["all"])
        segments = {1: ("SCT", "108369006", "x"), 2: ("SCT", "85756007", "Kidney"), 3: ("99X", "1", "kidney tumour")}
        assert match_segments(segments, kits, SEG) == {1: 2, 2: 1, 3: 2}
        of_list = list_layout(["1=organ", "2=tumor"], None).segments
        assert match_segments({1: ("SCT", "10200004", "x")}, of_list, SEG) == {1: 1}
        with pytest.raises(UserError, match=r"'spleen' \(SCT 78961009\); expected only kidney \(SCT 64033007\)"):
            match_segments({1: ("SCT", "78961009", "spleen")}, kits, SEG)
