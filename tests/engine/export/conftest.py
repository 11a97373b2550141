"""A small trained network and its exports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from datasets.slices.slice_folder import SliceFolder
from engine.training.schedule import Schedule
from networks import NETWORKS
from tests.commands import in_process, output_of
from tests.small import write_bare_archive
from tests.training import small_trainer
from utils.checkpoint import load_checkpoint, save_checkpoint

OFFSET = 0.75


class Place(NamedTuple):
    """A checkpoint with a decision, the slices that trained it, and what scripts/export.py wrote and printed."""

    checkpoint: Path
    slices: Path
    exported: Path
    printed: str


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("export")
    slices = write_bare_archive(root / "slices")
    trainer = small_trainer(SliceFolder.open(slices, "kits", "tumor"), root / "run", schedule=Schedule(30, 15, 1e-2))
    trainer.fit()
    checkpoint = root / "run" / "best.ckpt"
    cases = {"train": ["00000", "00001", "00002"], "val": ["00003"]}
    config = {"init": str(root / "first.ckpt")}
    save_checkpoint(checkpoint, {**load_checkpoint(checkpoint), "cases": cases, "config": config, "offsets": [OFFSET]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "tiny", "tests.small:tiny")
        words = ("--ckpt", checkpoint, "--outpath", root / "exported", "--int8", "--train_data_path", slices)
        patch.chdir(root)
        printed = output_of(in_process("scripts/export.py", *words, "--calibration", 6))
        yield Place(checkpoint, slices, root / "exported", printed)
