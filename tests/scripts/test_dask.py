"""Commands on a Dask cluster leave what one process leaves, also where workers are killed or cases fail."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread, Timer

import pytest

import engine.report.evaluation
import utils.cluster
from datasets.frame import Frame
from datasets.labels import organ_and_tumor
from engine.evaluation.shards import ScoredCases
from tests.cluster import LocalCluster, cluster, free_port
from tests.commands import Done, error_of, files_in, in_process, killed_after, output_of, without_seconds
from tests.data import kits_case
from tests.small import save_untrained
from utils.cluster import ClusterOptions
from utils.errors import UserError
from utils.files import read_json

CASES = 6


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with cluster(tmp_path_factory.mktemp("elsewhere")) as running:
        yield running


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    for number in range(CASES):
        kits_case(root, number, (48, 96, 96))
    return root


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "best.ckpt"
    save_untrained(path, organ_and_tumor()["tumor"], Frame(32, 28))
    return path


def cut(raw: Path, ckpt: Path, out: Path, *words: object) -> Done:
    words = ("--inpath", raw, "--outpath", out, "--test_fraction", 0.2, "--val_fraction", 0.2, "--workers", 1, *words)
    return in_process("scripts/SliceMaker.py", *words)


def predict(raw: Path, ckpt: Path, out: Path, *words: object) -> Done:
    return in_process("scripts/predict.py", "--ckpt", ckpt, "--inpath", raw, "--outpath", out, "--preview", *words)


def evaluate(raw: Path, ckpt: Path, out: Path, *words: object) -> Done:
    return in_process("scripts/evaluate.py", "--ckpt", ckpt, "--inpath", raw, "--outpath", out / "r.json", *words)


Command = Callable[..., Done]


def equal(out: Path, alone: Path) -> bool:
    """Byte for byte, but for what was measured and what tells of the launch."""
    measured = ("run.json", "volumes.csv", "volumes.json", "r.json", "r.csv")
    tables = [path.name for path in alone.glob("*.csv")]
    same = all(without_seconds(out / name) == without_seconds(alone / name) for name in tables)
    return same and files_in(out, *measured) == files_in(alone, *measured)


@pytest.mark.parametrize("command", [cut, predict, evaluate])
def test_a_worker_is_killed(command: Command, raw: Path, ckpt: Path, tmp_path: Path, two_workers: LocalCluster) -> None:
    alone, out = tmp_path / "alone", tmp_path / "cluster"
    output_of(command(raw, ckpt, alone))
    killer = Thread(target=two_workers.kill_one)
    killer.start()
    output_of(command(raw, ckpt, out, "--dask", two_workers.address))
    killer.join()
    assert equal(out, alone)


@pytest.mark.parametrize("command", [cut, predict, evaluate])
def test_a_case_that_fails_once(
    command: Command,
    ckpt: Path,
    tmp_path: Path,
    two_workers: LocalCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where a file server is away for a moment."""
    raw = tmp_path / "raw"
    for number in range(3):
        kits_case(raw, number)
    image = raw / "case_00001" / "imaging.nii.gz"
    content, when = image.read_bytes(), image.stat()
    output_of(command(raw, ckpt, tmp_path / "alone"))
    failed: list[UserError] = []
    result_of = utils.cluster._result

    def repair(*arguments: object) -> object:
        result = result_of(*arguments)
        if isinstance(result, UserError):
            failed.append(result)
            image.write_bytes(content)
            os.utime(image, ns=(when.st_atime_ns, when.st_mtime_ns))
        return result

    monkeypatch.setattr(utils.cluster, "_result", repair)
    image.write_bytes(bytes(len(content)))
    os.utime(image, ns=(when.st_atime_ns, when.st_mtime_ns))
    output_of(command(raw, ckpt, tmp_path / "cluster", "--dask", two_workers.address))
    assert len(failed) == 1 and equal(tmp_path / "cluster", tmp_path / "alone")


@pytest.mark.parametrize("command", [cut, predict, evaluate])
def test_a_case_that_fails_twice_is_named_and_the_others_are_done(
    command: Command, ckpt: Path, tmp_path: Path, two_workers: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        kits_case(Path("raw"), number)
    Path("raw/case_00001/imaging.nii.gz").write_bytes(b"nothing")
    error = error_of(command(Path("raw"), ckpt, Path("out"), "--dask", two_workers.address))
    assert "case_00001/imaging.nii.gz" in error
    kits_case(Path("raw"), 1)
    again = output_of(command(Path("raw"), ckpt, Path("out"), "--dask", two_workers.address))
    assert "1 cut now" in again or "2 of 3 cases are done" in again or "3 cases" in again


def test_evaluate_goes_on_from_what_a_killed_client_had(
    raw: Path, ckpt: Path, tmp_path: Path, two_workers: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = ScoredCases.add
    words = ("--dask", two_workers.address)
    with monkeypatch.context() as patch:
        patch.setattr(ScoredCases, "add", killed_after(2, add))
        assert evaluate(raw, ckpt, tmp_path / "cluster", *words).returncode == 130
    scored: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(ScoredCases, "add", lambda self, name, content: (scored.append(name), add(self, name, content)))
        output_of(evaluate(raw, ckpt, tmp_path / "cluster", *words))
    assert len(scored) == CASES - 2
    output_of(evaluate(raw, ckpt, tmp_path / "alone"))
    assert equal(tmp_path / "cluster", tmp_path / "alone")


def test_scores_tell_where_they_were_made(
    raw: Path, ckpt: Path, tmp_path: Path, two_workers: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two cases in a process that was stopped, the others on workers, which are other machines than it."""
    here = {"packages": {}, "environment": {}, "device": "cuda:0"}
    monkeypatch.setattr(engine.report.evaluation, "describe_place", lambda device: here)
    with monkeypatch.context() as patch:
        patch.setattr(ScoredCases, "add", killed_after(2, ScoredCases.add))
        assert evaluate(raw, ckpt, tmp_path).returncode == 130
    output_of(evaluate(raw, ckpt, tmp_path, "--dask", two_workers.address))
    first, second = read_json(tmp_path / "r.json")["scored_on"]
    assert first == here
    assert second["device"] == "cpu" and second["environment"]["python"] and second["packages"]["torch"]


def test_a_scheduler_that_ends_is_named(raw: Path, ckpt: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with cluster(tmp_path / "elsewhere", workers=0) as running:
        killer = Timer(1.0, running.scheduler.kill)
        killer.start()
        done = cut(raw, ckpt, tmp_path / "out", "--dask", running.address)
        assert done.returncode == 2 and "the scheduler has ended" in done.stderr
        assert "has no worker yet; waiting for one" in done.stderr


def test_no_scheduler(raw: Path, ckpt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils.cluster, "WAIT", 1.0)
    error = error_of(cut(raw, ckpt, tmp_path / "out", "--dask", f"tcp://127.0.0.1:{free_port()}"))
    assert "no scheduler answers there" in error and "start one with dask scheduler" in error


@pytest.mark.parametrize("address", ["", "abc", "tcp://127.0.0.1", "http://127.0.0.1:8786", "tcp://127.0.0.1:{port}"])
def test_a_wrong_address_touches_nothing(
    address: str, raw: Path, ckpt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was cut before can be trained on as before, though there is a new case to cut."""
    monkeypatch.setattr(utils.cluster, "WAIT", 0.5)
    some, out = tmp_path / "raw", tmp_path / "out"
    for number in range(3):
        kits_case(some, number)
    output_of(cut(some, ckpt, out))
    before = files_in(out)
    kits_case(some, 3)
    given = address.format(port=free_port())
    told = "no scheduler answers there" if given != address else "is no scheduler's address"
    for command in (cut, predict, evaluate):
        assert told in error_of(command(some, ckpt, out if command is cut else tmp_path / "new", "--dask", given))
    assert files_in(out) == before and not (tmp_path / "new").exists()


def test_a_server_that_is_no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection, and says nothing."""
    monkeypatch.setattr(utils.cluster, "WAIT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match="no answer within"):
            ClusterOptions(dask=address).refuse_no_scheduler()


def test_without_the_package(raw: Path, ckpt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    error = error_of(cut(raw, ckpt, tmp_path / "out", "--dask", "tcp://127.0.0.1:8786"))
    assert "pip install distributed==" in error


def test_a_shard_is_no_cluster(raw: Path, ckpt: Path, tmp_path: Path) -> None:
    words = ("--dask", "tcp://127.0.0.1:8786", "--shard", "1/2")
    assert "not allowed with" in error_of(cut(raw, ckpt, tmp_path / "out", *words))
