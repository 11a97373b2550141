"""What a training leaves when the disk is full, and where TensorBoard's folder can't be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.slices.slice_folder import SliceFolder
from engine.training.event_log import event_log
from engine.training.schedule import Schedule
from tests.faults import files_of_at_most
from tests.small import equal_states, write_bare_archive
from tests.training import small_trainer
from utils.errors import UserError

SCHEDULE = Schedule(8, 4, 1e-2)


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> SliceFolder:
    return SliceFolder.open(write_bare_archive(tmp_path_factory.mktemp("slices")), "kits", "tumor")


@pytest.fixture(scope="module")
def undisturbed(slices: SliceFolder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The state that a run ends with."""
    trainer = small_trainer(slices, tmp_path_factory.mktemp("undisturbed"), "hlfd", SCHEDULE)
    trainer.fit()
    return trainer.task.state_dict()


@pytest.mark.parametrize(("most", "file"), [(40_000, "last.ckpt"), (10_000, "best.ckpt"), (60, "log")])
def test_a_run_whose_disk_is_full_goes_on_where_it_was(
    slices: SliceFolder, tmp_path: Path, undisturbed: dict[str, Any], most: int, file: str
) -> None:
    """best.ckpt has about 20 kB, last.ckpt 60."""
    stopped = small_trainer(slices, tmp_path, "hlfd", SCHEDULE)
    stopped.progress.prepared = True
    stopped.save_last()
    before = stopped.folder.last.read_bytes()
    with files_of_at_most(most), pytest.raises(UserError, match=f"{file}: cannot be written .*; make room"):
        stopped.fit()
    assert stopped.folder.last.read_bytes() == before
    assert not list(tmp_path.glob(".writing-*"))
    resumed = small_trainer(slices, tmp_path, "hlfd", SCHEDULE)
    resumed.resume()
    resumed.fit()
    assert equal_states(undisturbed, resumed.task.state_dict())


def test_what_tensorboard_cannot_write_is_one_error_and_no_thread_s_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        files_of_at_most(2000),
        pytest.raises(UserError, match=r"log: cannot be written \(File too large\)"),
        event_log(tmp_path / "log", 0) as events,
    ):
        events.add(1, {"lr": 0.1}, {})
        events.add(2, {}, {"picture": torch.rand(3, 64, 64)})
    assert capfd.readouterr().err == ""


def test_a_file_where_tensorboard_s_folder_should_be_is_named(slices: SliceFolder, tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    with pytest.raises(UserError, match=r"log: cannot be used as a folder"):
        small_trainer(slices, tmp_path, schedule=SCHEDULE).fit()
