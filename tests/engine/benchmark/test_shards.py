"""A benchmark in three shards started together, one of them killed and started again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.engine.benchmark.tiny import TRAINING, Command
from tests.paths import ROOT
from tests.small import write_bare_archive

PROGRAM = f"""
import runpy, sys
from networks import NETWORKS
for name in ("tiny", "tiny_teacher"):
    NETWORKS[name] = f"tests.engine.benchmark.tiny:{{name}}"
sys.path.insert(0, {str(ROOT / "scripts")!r})
runpy.run_path({str(ROOT / "scripts/benchmark.py")!r}, run_name="__main__")
"""


def words(data: Path, out: Path) -> list[str]:
    given = [
        *("--train_teacher", "tiny_teacher", "--smodel", "tiny", "--seeds", 0, 1, 2, "--methods", "kd", "at"),
        *("--longer", 1.5, "--no_distances", *TRAINING, "--size", 32, "--crop", 0),
        *("--train_data_path", data, "--outpath", out),
    ]
    return list(map(str, given))


def start(data: Path, out: Path, shard: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, *words(data, out), "--shard", shard]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def scores(path: Path) -> str:
    return (path / "results.md").read_text().partition("| training cost")[0]


def test_the_tables_are_those_of_one_process(tmp_path: Path, run: Command) -> None:
    data = tmp_path / "slices"
    write_bare_archive(data / "train", cases=4)
    for path in write_bare_archive(data / "test", cases=6).glob("0000[0-3]_*.npz"):
        path.unlink()
    out = tmp_path / "several"
    first, second, third = (start(data, out, f"{number}/3") for number in (1, 2, 3))
    while second.poll() is None and not list(out.glob("runs/*/*/*/settings.json")):
        time.sleep(0.05)
    second.send_signal(signal.SIGKILL)
    outputs = [process.communicate(timeout=200) for process in (first, second, third)]
    assert (first.returncode, third.returncode) == (0, 0), outputs
    done = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*/*/result.json")}
    if second.returncode == -signal.SIGKILL:  # else it had ended before
        assert not (out / "results.md").exists()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_PROCID", "1")
            run("scripts/benchmark.py", *words(data, out), "--shard", "2/3")
    assert done.items() <= {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*/*/result.json")}.items()
    run("scripts/benchmark.py", *words(data, tmp_path / "one"))
    assert len(list(out.glob("runs/*/*/*/result.json"))) == 12
    assert scores(out) == scores(tmp_path / "one")
    assert (out / "cases.csv").read_bytes() == (tmp_path / "one" / "cases.csv").read_bytes()
    assert not list(out.glob(".*.lock"))
