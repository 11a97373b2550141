"""The output folders of SliceMaker: deciding what to cut is apart from moving and deleting files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from datasets.raw import open_layout
from datasets.raw.layout import Case
from datasets.slices.manifest import CutOptions
from datasets.slicing.output_folders import OutputFolders
from datasets.splits import Split
from tests.data import cut_slices, kits_case

SPLIT = Split(["00000", "00001"], ["00002"], [])


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    """Three cases, cut into OUT without test cases."""
    for number in range(3):
        kits_case(tmp_path / "raw", number)
    cut_slices(tmp_path / "raw", tmp_path / "out", val_fraction=0.3)
    return open_layout("kits", tmp_path / "raw").find(tmp_path / "raw")


def open_folders(root: Path, split: Split, task: str = "tumor", negatives: float = 0.1) -> OutputFolders:
    layout = open_layout("kits", root / "raw")
    options = CutOptions(negatives=negatives)
    return OutputFolders(root / "raw", root / "out", layout, layout.label_map(task), options, split, seed=0)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in (root / "out").rglob("*.*")}


def slices(root: Path, case: str = "") -> list[Path]:
    return sorted((root / "out").rglob(f"{case}*.npz"))


def test_asking_for_jobs_changes_nothing(tmp_path: Path, cases: list[Case]) -> None:
    before = files(tmp_path)
    for task, names in (("tumor", []), ("organ", ["00000", "00001", "00002"])):
        folders = open_folders(tmp_path, SPLIT, task)
        for _ in range(2):
            assert [job.case.name for job in folders.jobs(cases)] == names
    assert files(tmp_path) == before


def test_arrange_moves_slices_and_cuts_none(tmp_path: Path, cases: list[Case]) -> None:
    before = slices(tmp_path)
    open_folders(tmp_path, Split(["00000"], ["00001"], ["00002"])).arrange(cases)
    after = slices(tmp_path)
    assert {path.name for path in after} == {path.name for path in before}
    assert all(path.parent.name == ("test" if path.name.startswith("00002") else "train") for path in after)
    assert not list((tmp_path / "out").rglob("*_slices.npy"))


def test_arrange_deletes_the_slices_of_a_changed_source(tmp_path: Path, cases: list[Case]) -> None:
    os.utime(cases[0].image, (1, 1))
    folders = open_folders(tmp_path, SPLIT)
    folders.arrange(cases)
    assert not slices(tmp_path, "00000") and slices(tmp_path, "00001")
    assert "00000" in [job.case.name for job in folders.jobs(cases) if not job.on_disk]


def test_a_job_names_the_slices_that_need_not_be_written(tmp_path: Path, cases: list[Case]) -> None:
    folders = open_folders(tmp_path, SPLIT, negatives=1.0)
    folders.arrange(cases)
    jobs = folders.jobs(cases)
    assert [job.case.name for job in jobs] == [name for name in SPLIT.names if len(slices(tmp_path, name)) < 8] != []
    for job in jobs:
        assert {5, 6} <= job.on_disk < set(range(8))
        assert folders.destination(job.case.name).manifest.cases[job.case.name].written_slices == set(range(8))
