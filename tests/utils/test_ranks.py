"""Which processes are one of several."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import error_of, in_process
from utils.errors import UserError
from utils.ranks import COUNTS, RANKS, refuse_several_processes


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*COUNTS, *RANKS):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "started",
    [
        {"WORLD_SIZE": "2", "RANK": "0"},  # torchrun
        {"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"},  # srun's first
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "3"},
        {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"},
        {"PMI_SIZE": "8", "PMI_RANK": "7"},
    ],
)
def test_one_of_several_is_refused(monkeypatch: pytest.MonkeyPatch, started: dict[str, str]) -> None:
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="one of several processes that would write the same files"):
        refuse_several_processes()


@pytest.mark.parametrize(
    "started",
    [
        {},
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # one process in a script of sbatch --ntasks 4
        {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
    ],
)
def test_a_single_one_is_not(monkeypatch: pytest.MonkeyPatch, started: dict[str, str]) -> None:
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    refuse_several_processes()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("train.py", []),
        ("train_kd.py", ["--tckpt", "x"]),
        ("scripts/benchmark.py", ["--tckpt", "x"]),
        ("scripts/SliceMaker.py", ["--inpath", "x", "--outpath", "y", "--dataset", "kits"]),
        ("scripts/paper.py", ["--inpath", "x"]),
        ("scripts/predict.py", ["--ckpt", "x", "--inpath", "x", "--outpath", "y"]),
        ("scripts/evaluate.py", ["--ckpt", "x", "--inpath", "x", "--outpath", "y.json"]),
    ],
)
def test_every_command_that_writes_results_refuses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, words: list[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.chdir(tmp_path)
    assert error_of(in_process(script, *words)).startswith("error: WORLD_SIZE is 2")
    assert not list(tmp_path.iterdir())
