"""A benchmark as an array: on submitit's local executor with a task preempted, and what sbatch is told."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from datasets.frame import Frame
from datasets.labels import organ_and_tumor
from engine.benchmark.slurm import SlurmOptions, submit
from tests.commands import error_of, in_process, output_of
from tests.engine.benchmark.test_shards import PROGRAM, scores
from tests.engine.benchmark.tiny import Command
from tests.paths import ROOT
from tests.small import save_untrained, write_bare_archive

STEPS = 100


def words(data: Path, out: Path) -> list[str]:
    given = [
        *("--train_teacher", "tiny_teacher", "--smodel", "tiny", "--seeds", 0, "--methods", "kd", "--longer", 0),
        *("--no_distances", "--steps", STEPS, "--val_every", 10, "--teacher_steps", 4, "--batch_size", 4),
        *("--size", 32, "--crop", 0, "--lr", 0.01, "--device", "cpu"),
        *("--train_data_path", data, "--outpath", out),
    ]
    return list(map(str, given))


def write_slices(folder: Path) -> None:
    """Four cases to train on, and two others to test on."""
    write_bare_archive(folder / "train", cases=4)
    for path in write_bare_archive(folder / "test", cases=6).glob("0000[0-3]_*.npz"):
        path.unlink()


def task_of(controller: int) -> int:
    """The process of the only task of a job of the local executor."""
    children = Path(f"/proc/{controller}/task/{controller}/children")
    while not children.read_text().split():
        time.sleep(0.05)
    return int(children.read_text().split()[0])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc for the process of a task")
def test_a_preempted_task_goes_on_from_its_last_checkpoint(tmp_path: Path, run: Command) -> None:
    data, out = tmp_path / "slices", tmp_path / "array"
    write_slices(data)
    script = tmp_path / "benchmark.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{PROGRAM}")
    own = ["--slurm", "2", "--at_once", "1", "--sbatch", "partition=gpu"]
    jobs = submit(SlurmOptions(slurm=2), out, [str(script), *own, *words(data, out)], "local")
    first = task_of(int(jobs[0].job_id))
    while not (begun := list(out.glob("runs/*/undistilled/*/last.ckpt"))):
        assert jobs[0].state == "RUNNING", jobs[0].stderr()
        time.sleep(0.01)
    os.kill(first, signal.SIGUSR2)
    for job in jobs:
        job._process.wait(timeout=300)
    output = jobs[0].stdout() + jobs[0].stderr()
    assert "Requeued job" in output
    log = (begun[0].parent / "train.log").read_text()
    assert log.count("loss = ") == 2, "it had ended before"
    assert len(re.findall(r"^step +\d+", log, re.MULTILINE)) <= STEPS // 10 + 1, "it began at its first step again"
    assert (out / "results.md").exists(), output
    run("scripts/benchmark.py", *words(data, tmp_path / "one"))
    assert scores(out) == scores(tmp_path / "one")
    assert (out / "cases.csv").read_bytes() == (tmp_path / "one" / "cases.csv").read_bytes()


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Slurm that only keeps what it is given: the file with the last array."""
    programs, kept = tmp_path / "bin", tmp_path / "array.sh"
    programs.mkdir()
    for name, line in (("sbatch", f'cp "$1" {kept}; echo "Submitted batch job 12"'), ("srun", "exit 1")):
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return kept


@pytest.fixture
def named(tmp_path: Path) -> tuple[object, ...]:
    """A teacher and slices, as the command names them."""
    save_untrained(tmp_path / "t.ckpt", organ_and_tumor()["tumor"], Frame(32, 28))
    write_slices(tmp_path / "slices")
    return "--tckpt", tmp_path / "t.ckpt", "--train_data_path", tmp_path / "slices"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (("--methods", "hlfdd"), "hlfdd"),
        (("--smodel", "resnet_19"), "resnet_19"),
        (("--tckpt", "missing.ckpt"), "missing.ckpt"),
        (("--train_data_path", "missing"), "missing"),
        (("--test_data_path", "missing"), "missing"),
        (("--also_test", "missing"), "--also_test missing"),
        (("--against", "kd"), "--against kd"),
    ],
)
def test_a_wrong_command_is_not_submitted(
    wrong: tuple[object, ...], told: str, named: tuple[object, ...], sbatch: Path, tmp_path: Path
) -> None:
    words = (*named, "--slurm", 300, "--outpath", tmp_path / "out", *wrong)
    assert told in error_of(in_process("scripts/benchmark.py", *words))
    assert not sbatch.exists() and not (tmp_path / "out").exists()


def test_one_array_is_submitted(sbatch: Path, tmp_path: Path, named: tuple[object, ...]) -> None:
    out = tmp_path / "out"
    own = ("--slurm", 5, "--at_once", 2, "--sbatch", "partition=gpu", "time=4:00:00", "exclusive")
    told = output_of(in_process("scripts/benchmark.py", *named, *own, "--outpath", out))
    assert "array 12: 5 tasks, 2 at once" in told and str(out / "slurm") in told
    lines = sbatch.read_text().splitlines()
    for flag in ("array=0-4%2", "partition=gpu", "time=4:00:00", "exclusive", "requeue", "signal=USR2@90"):
        assert f"#SBATCH --{flag}" in lines
    assert len(list((out / "slurm").glob("12_?_submitted.pkl"))) == 5


def test_what_sbatch_refuses_is_one_line(sbatch: Path, tmp_path: Path, named: tuple[object, ...]) -> None:
    program = tmp_path / "bin" / "sbatch"
    program.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: gpu' >&2; exit 1\n")
    words = (*named, "--slurm", 2, "--outpath", tmp_path / "out")
    assert "sbatch refuses: " in (error := error_of(in_process("scripts/benchmark.py", *words)))
    assert "invalid partition specified: gpu" in error


def test_without_slurm_and_without_submitit(
    tmp_path: Path, named: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*named, "--slurm", 2, "--outpath", tmp_path / "out")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no sbatch here" in error_of(in_process("scripts/benchmark.py", *words))
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert "pip install submitit==" in error_of(in_process("scripts/benchmark.py", *words))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--at_once", 2), "--at_once: is of --slurm"),
        (("--slurm", 2, "--report"), "leave --slurm out"),
        (("--slurm", 2, "--shard", "1/2"), "not allowed with"),
    ],
)
def test_what_does_not_go_together(given: tuple[object, ...], told: str) -> None:
    assert told in error_of(in_process("scripts/benchmark.py", "--tckpt", "t.ckpt", *given))
