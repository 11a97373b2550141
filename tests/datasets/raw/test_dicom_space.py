"""Every output is right in space, whatever the storage of the input: NIfTI and DICOM in, NIfTI and SEG out."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset

from datasets.labels import organ_and_tumor
from datasets.raw import dicom_series, open_layout
from datasets.raw.dicom_seg import OF_PATIENT_AND_STUDY, Algorithm, write_dicom_seg
from datasets.raw.layout import Case
from datasets.raw.segments import SegmentCode, segment_code, segments_of
from datasets.raw.volume import Volume, read_volume, write_labels
from tests.data import ct_and_label
from tests.dicom import SPACING, STORAGES, place, save_nifti, store, write_series
from utils.errors import UserError

IMAGE, LABEL = ct_and_label((6, 20, 24))
SEGMENTS = segments_of("kits", organ_and_tumor()["all"])
NETWORK = Algorithm("raunet (kits, all)", "0123456789ab")


def read_dicom(folder: Path, label: Path | None = None, segments: Mapping[int, SegmentCode] | None = None) -> Volume:
    (case,) = dicom_series.find(folder)
    layout = open_layout("kits", folder)
    case = Case(case.name, case.image, label, files=case.files)
    return read_volume(case, layout.labels, hounsfield=True, segments=segments or layout.segments)


def is_tumour_in_place(labels: NDArray[np.uint8], affine: NDArray[np.float64], storage: str) -> bool:
    """Whether the voxels of label 2 lie where they were drawn; affine: to mm to left, posterior and superior."""
    found = np.argwhere(labels == 2) @ affine[:3, :3].T + affine[:3, 3]
    drawn = np.array([place((z, y, x), storage) for z, y, x in np.argwhere(LABEL == 2).tolist()])
    return len(found) == len(drawn) and all(np.linalg.norm(found - each, axis=1).min() < 1e-3 for each in drawn)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("source", ["nifti", "dicom"])
def test_a_volume_and_its_nifti(tmp_path: Path, source: str, storage: str) -> None:
    if source == "dicom":
        write_series(tmp_path / "ct", IMAGE, storage)
        volume = read_dicom(tmp_path / "ct")
    else:
        case = Case("ct", save_nifti(tmp_path / "ct.nii.gz", IMAGE, storage), None)
        volume = read_volume(case, (), hounsfield=True)
    np.testing.assert_array_equal(volume.image, IMAGE)
    assert volume.spacing == pytest.approx(tuple(SPACING.values()), rel=1e-5)
    write_labels(tmp_path / "out.nii.gz", LABEL, volume)
    out = nib.load(tmp_path / "out.nii.gz")
    assert is_tumour_in_place(np.asanyarray(out.dataobj), np.diag([-1, -1, 1, 1]) @ out.affine, storage)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("labelmap", [False, True], ids=["binary", "labelmap"])
def test_a_seg_lies_on_its_series_and_comes_back(tmp_path: Path, labelmap: bool, storage: str) -> None:
    slices = write_series(tmp_path / "ct", IMAGE, storage)
    volume = read_dicom(tmp_path / "ct")
    path = tmp_path / "out_seg.dcm"
    write_dicom_seg(path, LABEL, volume, SEGMENTS, NETWORK, labelmap=labelmap)
    seg = hd.seg.segread(path)
    whole = seg.get_volume(combine_segments=True)
    assert is_tumour_in_place(whole.array, whole.affine, storage)
    if not labelmap:  # Each frame names the slice that it is of, which says the same without any geometry.
        uids = [each.SOPInstanceUID for each in slices]
        frames = seg.get_pixels_by_source_instance(
            uids, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
        )
        np.testing.assert_array_equal(frames, store(LABEL, storage)[0])
    np.testing.assert_array_equal(read_dicom(tmp_path / "ct", path).label, LABEL)


@pytest.mark.parametrize("storage", [STORAGES[5], STORAGES[-1]])
def test_a_nifti_segmentation_of_a_series(tmp_path: Path, storage: str) -> None:
    write_series(tmp_path / "ct", IMAGE, storage)
    write_labels(tmp_path / "label.nii.gz", LABEL, read_dicom(tmp_path / "ct"))
    volume = read_dicom(tmp_path / "ct", tmp_path / "label.nii.gz")
    np.testing.assert_array_equal(volume.label, LABEL)
    assert volume.notes == []


def test_what_a_seg_says(tmp_path: Path) -> None:
    def of_latin_1(i: int, header: FileDataset) -> FileDataset:
        header.SpecificCharacterSet, header.PatientName = "ISO_IR 100", "Müller^Ilse"
        return header

    slices = write_series(tmp_path / "ct", IMAGE, change=of_latin_1)
    write_dicom_seg(tmp_path / "seg.dcm", LABEL, read_dicom(tmp_path / "ct"), SEGMENTS, NETWORK)
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    assert seg.PatientName == "Müller^Ilse" and seg.StudyInstanceUID == slices[0].StudyInstanceUID
    assert seg.FrameOfReferenceUID == slices[0].FrameOfReferenceUID
    (series,) = seg.ReferencedSeriesSequence
    referred = {each.ReferencedSOPInstanceUID for each in series.ReferencedInstanceSequence}
    assert series.SeriesInstanceUID == slices[0].SeriesInstanceUID
    assert referred == {each.SOPInstanceUID for each in slices}
    organ, tumour = (seg.get_segment_description(number) for number in (1, 2))
    assert (organ.segment_label, organ.segmented_property_type.value) == ("kidney", "64033007")
    assert (tumour.segment_label, tumour.segmented_property_type.value) == ("kidney tumor", "108369006")
    assert [region.value for region in tumour.anatomic_regions] == ["64033007"]
    assert tumour.algorithm_type.value == "AUTOMATIC"
    assert tumour.algorithm_identification[0].AlgorithmName == NETWORK.name


def test_what_anonymisers_delete_is_empty_in_the_seg(tmp_path: Path) -> None:
    def anonymised(i: int, header: FileDataset) -> FileDataset:
        for keyword in OF_PATIENT_AND_STUDY:
            delattr(header, keyword)
        return header

    write_series(tmp_path / "ct", IMAGE, change=anonymised)
    volume = read_dicom(tmp_path / "ct")
    write_dicom_seg(tmp_path / "seg.dcm", LABEL, volume, SEGMENTS, NETWORK)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert all(keyword in seg and not seg[keyword].value for keyword in OF_PATIENT_AND_STUDY)
    assert volume.series is not None and "StudyID" not in volume.series.slices[0]
    np.testing.assert_array_equal(read_dicom(tmp_path / "ct", tmp_path / "seg.dcm").label, LABEL)


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_a_series_that_no_seg_can_refer_to_is_refused_in_one_line(tmp_path: Path) -> None:
    def of_unknown_sex(i: int, header: FileDataset) -> FileDataset:
        header.PatientSex = "unknown"
        return header

    write_series(tmp_path / "ct", IMAGE, change=of_unknown_sex)
    with pytest.raises(UserError, match=r"ct: no DICOM SEG can refer to it \('unknown' is not .*; mend its headers"):
        write_dicom_seg(tmp_path / "seg.dcm", LABEL, read_dicom(tmp_path / "ct"), SEGMENTS, NETWORK)
    assert not (tmp_path / "seg.dcm").exists()


def test_long_names_of_networks_are_cut(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", IMAGE)
    network = Algorithm(f"smp/unetplusplus/{'x' * 60} (kits, all)", "1")
    write_dicom_seg(tmp_path / "seg.dcm", LABEL, read_dicom(tmp_path / "ct"), SEGMENTS, network)
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    assert seg.ManufacturerModelName == network.name[:64]
    assert seg.SeriesDescription == f"Segmentation by {network.name}"[:64]


@pytest.mark.parametrize("characters", ["ISO_IR 100", None])
def test_names_in_any_letters(tmp_path: Path, characters: str | None) -> None:
    def of_characters(i: int, header: FileDataset) -> FileDataset:
        procedure = Dataset()
        procedure.CodeValue, procedure.CodingSchemeDesignator, procedure.CodeMeaning = "1", "99RIS", "CT"
        header.ProcedureCodeSequence = [procedure]
        header.SpecificCharacterSet, header.PatientName = characters, "Muller^Ilse"
        if characters:
            header.PatientName, procedure.CodeMeaning = "Müller^Ilse", "Schädel"
        return header

    write_series(tmp_path / "ct", IMAGE, change=of_characters)
    segments = {1: segment_code("list", "肾"), 2: segment_code("list", "肿瘤")}
    write_dicom_seg(tmp_path / "seg.dcm", LABEL, read_dicom(tmp_path / "ct"), segments, NETWORK)
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    assert [seg.get_segment_description(number).segment_label for number in (1, 2)] == ["肾", "肿瘤"]
    assert seg.PatientName == ("Müller^Ilse" if characters else "Muller^Ilse")
    assert seg.ProcedureCodeSequence[0].CodeMeaning == ("Schädel" if characters else "CT")


def test_an_empty_prediction_is_written_and_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_series(tmp_path / "ct", IMAGE)
    volume = read_dicom(tmp_path / "ct")
    for name, labels in (("none", np.zeros_like(LABEL)), ("organ", LABEL.clip(0, 1))):
        write_dicom_seg(tmp_path / name, labels, volume, SEGMENTS, NETWORK)
        np.testing.assert_array_equal(read_dicom(tmp_path / "ct", tmp_path / name).label, labels)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("tumour", [2, 1])
def test_a_tumour_wins_over_the_organ_that_it_is_in(tmp_path: Path, tumour: int) -> None:
    """Whichever has the higher label: a data set of one's own may number the tumour first."""
    write_series(tmp_path / "ct", IMAGE)
    volume = read_dicom(tmp_path / "ct")
    series = volume.series
    assert series is not None
    write_dicom_seg(tmp_path / "one", LABEL, volume, SEGMENTS, NETWORK)
    seg = hd.seg.segread(tmp_path / "one")
    descriptions = [seg.get_segment_description(number) for number in (1, 2)]
    stored = np.stack([LABEL > 0, LABEL == 2], axis=-1).astype(np.uint8)[::-1]  # highdicom's slices run downwards
    assert series.geometry.affine[2, 0] < 0
    overlapping = hd.seg.Segmentation(
        series.slices,
        series.geometry.with_array(stored, channels={"SegmentNumber": [1, 2]}),
        "BINARY",
        descriptions,
        *(hd.UID(), 1, hd.UID(), 1, "maker", "model", "1", "none"),
    )
    overlapping.save_as(tmp_path / "both")
    segments = {3 - tumour: SEGMENTS[1], tumour: SEGMENTS[2]}
    expected = np.array([0, 3 - tumour, tumour], np.uint8)[LABEL]
    read = read_dicom(tmp_path / "ct", tmp_path / "both", segments)
    np.testing.assert_array_equal(read.label, expected)


def test_a_multi_frame_ct(tmp_path: Path) -> None:
    slices = write_series(tmp_path / "ct", IMAGE, STORAGES[5])
    for number, each in enumerate(slices, start=1):
        each.InstanceNumber = number
    uids = (hd.UID(), 3, hd.UID(), 1)
    multi = hd.legacy.LegacyConvertedEnhancedCTImage(slices, *uids)
    for path in (tmp_path / "ct").iterdir():
        path.unlink()
    multi.save_as(tmp_path / "ct" / "all.dcm")
    volume = read_dicom(tmp_path / "ct")
    np.testing.assert_array_equal(volume.image, IMAGE)
    for labelmap in (False, True):
        write_dicom_seg(tmp_path / "seg.dcm", LABEL, volume, SEGMENTS, NETWORK, labelmap=labelmap)
        np.testing.assert_array_equal(read_dicom(tmp_path / "ct", tmp_path / "seg.dcm").label, LABEL)


def test_all_storages_differ() -> None:
    stored = [store(IMAGE, storage) for storage in STORAGES]
    assert not any(
        one[0].shape == other[0].shape and np.allclose(one[1], other[1])
        for one, other in itertools.combinations(stored, 2)
    )
