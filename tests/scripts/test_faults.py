"""Short samples of what scripts/check_resume.py and scripts/soak.py do for longer, and a disk that is really full."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import as_process, output_of
from tests.paths import ROOT
from tests.small import write_bare_archive

UNSHARED = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")


def test_a_killed_training_ends_bit_for_bit_as_an_undisturbed_one(tmp_path: Path) -> None:
    printed = output_of(
        as_process("scripts/check_resume.py", "--kills", 2, "--trainings", "supervised", "--outpath", tmp_path / "out")
    )
    assert "supervised: 8 steps, " in printed and "equal bit for bit" in printed


def test_a_short_soak_loses_nothing() -> None:
    printed = output_of(as_process("scripts/soak.py", "--minutes", 0.01, "--seed", 3))
    assert "1 rounds, " in printed and printed.endswith("nothing lost\n")


def may_mount() -> bool:
    """Whether a small file system can be made here."""
    try:
        return subprocess.run([*UNSHARED, "mount -t tmpfs tmpfs /mnt"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not may_mount(), reason="no file system may be mounted here")
def test_a_small_file_system_that_fills_up_leaves_a_run_that_goes_on_elsewhere(tmp_path: Path) -> None:
    """The first checkpoint of an enet fits, the second, which has an optimiser's state, does not."""
    slices = write_bare_archive(tmp_path / "slices")
    words = f"--model enet --train_data_path {slices} --size 32 --crop 0 --steps 2 --val_every 1 --device cpu"
    train = f"{sys.executable} {ROOT / 'train.py'} {words} --workers 0 --checkpoint_path"
    small, saved = tmp_path / "small", tmp_path / "saved"
    small.mkdir()
    fill = f"mount -t tmpfs -o size=4m tmpfs {small}; {train} {small}; status=$?; cp -r {small} {saved}; exit $status"
    done = subprocess.run([*UNSHARED, fill], capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {small}/")
    assert "(No space left on device); make room" in done.stderr
    assert "best validation Dice" in output_of(
        as_process("train.py", *words.split(), "--checkpoint_path", saved, "--resume")
    )
