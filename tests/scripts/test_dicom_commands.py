"""DICOM on the command line: series in, NIfTI and SEG out, and one line for what cannot be read."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1, generate_uid

from datasets.frame import Frame
from datasets.labels import organ_and_tumor
from datasets.raw import dicom_series
from engine.segmenter import Segmenter
from networks import build
from tests.commands import Done, error_of, in_process, output_of
from tests.data import ct_and_label
from tests.dicom import AXIAL, as_drawn, write_seg, write_series
from utils.checkpoint import save_checkpoint

IMAGE, LABEL = ct_and_label((6, 20, 24))
Change = Callable[[int, FileDataset], FileDataset | None]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network whose classes are made about as frequent as each other."""
    torch.manual_seed(0)
    network = build("enet", 3).eval()
    with torch.no_grad():
        logits = network(torch.rand(4, 1, 32, 32) * 2 - 1)
        *_, bias = network.parameters()
        bias -= logits.mean(dim=(0, 2, 3))
    segmenter = Segmenter(network, "enet", "kits", organ_and_tumor()["all"], Frame(32, 0), (-200.0, 300.0))
    path = tmp_path_factory.mktemp("network") / "best.ckpt"
    content = {"weights": network.state_dict(), "config": {}, "cases": {"train": [], "val": []}}
    save_checkpoint(path, {**segmenter.description(), **content})
    return path


def without(keyword: str) -> Change:
    def change(i: int, header: FileDataset) -> FileDataset:
        delattr(header, keyword)
        return header

    return change


@pytest.fixture
def predict(checkpoint: Path, tmp_path: Path) -> Callable[..., Done]:
    def run(inpath: Path, *words: object) -> Done:
        where = ("--inpath", inpath, "--outpath", tmp_path / "out", "--device", "cpu")
        return in_process("scripts/predict.py", "--ckpt", checkpoint, *where, *words)

    return run


def written(folder: Path) -> list[str]:
    """But for the reports on all cases."""
    reports = {"run.json", "volumes.csv", "volumes.json"}
    return sorted(path.name for path in folder.iterdir() if path.name not in reports) if folder.exists() else []


def of_uid(uid: str, **values: object) -> Change:
    def change(i: int, header: FileDataset) -> FileDataset:
        header.SeriesInstanceUID = uid
        for name, value in values.items():
            setattr(header, name, value)
        return header

    return change


def test_a_study_of_several_series(predict: Callable[..., Done], tmp_path: Path) -> None:
    study = tmp_path / "raw"
    write_series(study / "venous", IMAGE, AXIAL[5])
    write_series(study / "late", IMAGE)
    write_series(study / "scout", IMAGE[:2], change=of_uid("1.2.3", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    (study / "read me").write_text("no image")
    printed = output_of(predict(study, "--dicom_seg"))
    assert written(tmp_path / "out") == ["late.nii.gz", "late_seg.dcm", "venous.nii.gz", "venous_seg.dcm"]
    assert "left out, localizers: 2: scout/" in printed
    assert "Ilse" not in printed and "P-77" not in printed
    labels = np.asanyarray(nib.load(tmp_path / "out" / "late.nii.gz").dataobj)
    seg = hd.seg.segread(tmp_path / "out" / "late_seg.dcm").get_volume(combine_segments=True)
    assert {1, 2} <= set(np.unique(labels))
    assert all((seg.array == value).sum() == (labels == value).sum() for value in (1, 2))


def test_predictions_are_no_reference(predict: Callable[..., Done], tmp_path: Path) -> None:
    write_series(tmp_path / "raw" / "late", IMAGE)
    output_of(predict(tmp_path / "raw", "--dicom_seg"))
    (tmp_path / "out").rename(tmp_path / "raw" / "predicted")
    found = dicom_series.find(tmp_path / "raw", labels=True)
    assert [case.label for case in found] == [None]
    assert any("predictions of this project" in note for note in found.notes)


def test_a_series_without_a_seg_stops_no_other(predict: Callable[..., Done], tmp_path: Path) -> None:
    """Its mask is not left behind, whatever fails of the case."""
    write_series(tmp_path / "raw" / "early", IMAGE, change=without("StudyInstanceUID"))
    write_series(tmp_path / "raw" / "late", IMAGE, change=without("StudyID"), seed=1)
    error = error_of(predict(tmp_path / "raw", "--dicom_seg"))
    assert "1 of 2 cases could not be predicted" in error and "early: no DICOM SEG can refer to it" in error
    assert written(tmp_path / "out") == ["late.nii.gz", "late_seg.dcm"]


def test_a_changed_slice_is_predicted_again(predict: Callable[..., Done], tmp_path: Path) -> None:
    write_series(tmp_path / "raw", IMAGE)
    output_of(predict(tmp_path / "raw", "--dicom_seg"))
    output_of(predict(tmp_path / "raw", "--preview"))
    assert written(tmp_path / "out") == ["raw.nii.gz", "raw.png", "raw_seg.dcm"]  # of the same image, by the same
    assert "1 of 1 cases are done" in output_of(predict(tmp_path / "raw"))
    first = sorted((tmp_path / "raw").iterdir())[0]
    header = pydicom.dcmread(first)
    header.PixelData = bytes(len(header.PixelData))
    header.save_as(first)
    os.utime(first, (1, 1))
    assert "cases are done" not in output_of(predict(tmp_path / "raw"))
    assert written(tmp_path / "out") == ["raw.nii.gz"]  # the picture and the SEG were of the image before


def test_series_chooses(predict: Callable[..., Done], tmp_path: Path) -> None:
    for number in (1, 2):
        write_series(tmp_path / f"{number}", IMAGE, change=of_uid(f"1.2.{number}"))
        for path in (tmp_path / f"{number}").iterdir():
            (tmp_path / "raw").mkdir(exist_ok=True)
            path.rename(tmp_path / "raw" / f"{path.name}.{number}")
    output_of(predict(tmp_path / "raw", "--series", "1.2.2"))
    assert written(tmp_path / "out") == ["raw.nii.gz"]
    output_of(predict(tmp_path / "raw"))
    assert written(tmp_path / "out") == ["1.2.1.nii.gz", "1.2.2.nii.gz", "raw.nii.gz"]
    assert "holds no series 1.9; choose one of 1.2.1 (6 files), 1.2.2" in error_of(
        predict(tmp_path / "raw", "--series", "1.9")
    )


def missing(i: int, header: FileDataset) -> FileDataset | None:
    return None if i == 2 else header


def doubled(i: int, header: FileDataset) -> FileDataset:
    header.ImagePositionPatient[2] = [0, 3, 6, 0, 3, 6][i]
    header.AcquisitionNumber = 1 + i // 3
    return header


def turned(i: int, header: FileDataset) -> FileDataset:
    if i == 3:
        header.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    return header


def tilted(i: int, header: FileDataset) -> FileDataset:
    header.ImagePositionPatient[1] += i * 0.5
    return header


def coloured(i: int, header: FileDataset) -> FileDataset:
    header.SamplesPerPixel, header.PhotometricInterpretation, header.PlanarConfiguration = 3, "RGB", 0
    header.PixelData *= 3
    return header


def compressed(i: int, header: FileDataset) -> FileDataset:
    header.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    header.PixelData = encapsulate([b"\xff\xd8 not decoded here \xff\xd9"])
    return header


def cut_off(i: int, header: FileDataset) -> FileDataset:
    if i == 4:
        header.PixelData = header.PixelData[:100]
    return header


def resized(i: int, header: FileDataset) -> FileDataset:
    if i == 1:
        header.Rows, header.PixelData = 10, header.PixelData[: len(header.PixelData) // 2]
    return header


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (missing, "lie 6 mm apart, others 3"),
        (doubled, "of acquisitions 1 and 2, lie at one place; keep one acquisition"),
        (turned, "is not parallel to"),
        (tilted, "stacked at 9.46 degrees (gantry tilt)"),
        (coloured, "left out, colour images: 6"),
        (compressed, "is compressed as JPEG Lossless"),
        (cut_off, "its pixels cannot be decoded"),
        (resized, "differ in Rows"),
        (of_uid("1.2.3", ImagePositionPatient=None), "without a position in the patient: 6"),
        (of_uid("1.2.3", Modality="MR"), "is a series of MR, but CT is expected"),
        (of_uid("1.2.3", Modality="RTSTRUCT"), "left out, DICOM files of modality RTSTRUCT: 6"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_a_series_that_is_no_volume_of_ct(
    predict: Callable[..., Done], tmp_path: Path, change: Change, message: str
) -> None:
    write_series(tmp_path / "raw" / "ct", IMAGE, change=change)
    line = error_of(predict(tmp_path / "raw", "--dicom_seg"))
    assert message in line
    assert "Ilse" not in line and written(tmp_path / "out") == []


def test_options_that_do_not_fit(predict: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "nifti").mkdir()
    nib.save(nib.Nifti1Image(IMAGE, np.eye(4)), tmp_path / "nifti" / "a.nii.gz")
    assert "is no DICOM series, to which a SEG refers" in error_of(predict(tmp_path / "nifti", "--dicom_seg"))
    assert "add --dicom_seg" in error_of(predict(tmp_path / "nifti", "--labelmap"))
    write_series(tmp_path / "ct", IMAGE)
    assert "give the folder of the series" in error_of(predict(tmp_path / "ct" / "IM0000"))
    assert written(tmp_path / "out") == []


def scores(checkpoint: Path, inpath: Path, *words: object) -> dict[str, dict[str, object]]:
    out = inpath.parent / "scores.json"
    where = ("--inpath", inpath, "--outpath", out, "--device", "cpu")
    output_of(in_process("scripts/evaluate.py", "--ckpt", checkpoint, *where, *words))
    assert "Ilse" not in out.read_text()
    with out.with_suffix(".csv").open() as file:
        return {f"{row['case']} {row['region']}": row for row in csv.DictReader(file)}


@pytest.mark.parametrize("kind", ["seg", "labelmap", "nifti"])
def test_a_prediction_is_the_reference_that_it_scores_full_marks_against(
    predict: Callable[..., Done], checkpoint: Path, tmp_path: Path, kind: str
) -> None:
    raw = tmp_path / "raw"
    for number in range(2):
        write_series(raw / f"p{number}" / "ct", IMAGE + number, AXIAL[5], seed=number)
    words = {"seg": ["--dicom_seg"], "labelmap": ["--dicom_seg", "--labelmap"], "nifti": []}[kind]
    output_of(predict(raw, *words))
    assert "p0_ct.nii.gz" in written(tmp_path / "out")
    wanted = ".nii.gz" if kind == "nifti" else "_seg.dcm"
    for number in range(2):
        path = (tmp_path / "out" / f"p{number}_ct{wanted}").rename(raw / f"p{number}" / f"p{number}_ct{wanted}")
        if kind != "nifti":
            as_drawn(path)
    for line in scores(checkpoint, raw).values():
        assert float(str(line["dice"])) == 1 and float(str(line["hd95_mm"])) == 0


def test_a_list_names_series_and_segmentations(checkpoint: Path, tmp_path: Path) -> None:
    write_series(tmp_path / "raw" / "a", IMAGE)
    write_seg(tmp_path / "raw" / "masks.dcm", LABEL, tmp_path / "raw" / "a")
    (tmp_path / "raw" / "cases.csv").write_text("image,label,patient\na,masks.dcm,7\n")
    words = ("--dataset", "list", "--labels", "1=organ", "2=tumor")
    by_table = scores(checkpoint, tmp_path / "raw" / "cases.csv", *words)
    by_folder = scores(checkpoint, tmp_path / "raw")
    assert by_table["a tumor"]["dice"] == by_folder["a tumor"]["dice"]


def test_slices_are_cut_from_series(tmp_path: Path) -> None:
    for number in range(3):
        folder = tmp_path / "raw" / f"p{number}"
        write_series(folder, IMAGE, seed=number, change=of_uid(generate_uid(), PatientID=f"P{number // 2}"))
        path = tmp_path / "raw" / f"{number}_seg.dcm"
        write_seg(path, LABEL, folder)
    words = ("--inpath", tmp_path / "raw", "--outpath", tmp_path / "slices", "--mode", "test", "--workers", 1)
    output_of(in_process("scripts/SliceMaker.py", *words))
    cases = json.loads((tmp_path / "slices" / "cases.json").read_text())["cases"]
    assert list(cases) == ["p0", "p1", "p2"] and cases["p0"]["slices"] == 6
    # Slices are counted downwards here, as highdicom sorts them.
    with np.load(tmp_path / "slices" / "p0_4.npz") as content:
        assert {0, 1, 2} == set(np.unique(content["mask"]))
    assert cases["p1"]["patient"] == "p0" and "P0" not in json.dumps(cases)
