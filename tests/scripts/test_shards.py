"""Commands as several processes: together they leave what one leaves, and one that dies redoes nothing that is done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import datasets.slicing.slicemaker as slicemaker
import engine.evaluation.evaluate as evaluation
from datasets.frame import Frame
from datasets.labels import organ_and_tumor
from tests.commands import Done, error_of, files_in, in_process, killed_after, output_of, without_seconds
from tests.data import kits_case
from tests.small import save_untrained


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five cases of KiTS."""
    root = tmp_path_factory.mktemp("raw")
    for number in range(5):
        kits_case(root, number)
    return root


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "best.ckpt"
    save_untrained(path, organ_and_tumor()["tumor"], Frame(32, 28))
    return path


def cut(raw: Path, out: Path, *words: object) -> Done:
    words = ("--inpath", raw, "--outpath", out, "--test_fraction", 0.2, "--val_fraction", 0.2, "--workers", 1, *words)
    return in_process("scripts/SliceMaker.py", *words)


def test_slices(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output_of(cut(raw, tmp_path / "one"))
    out = tmp_path / "several"
    with monkeypatch.context() as patch:
        patch.setattr(slicemaker, "cut_case", killed_after(1, slicemaker.cut_case))
        assert cut(raw, out, "--shard", "1/3").returncode == 130
    done = {path: path.stat().st_mtime_ns for path in out.rglob("*.npz")}
    assert done
    assert "put together when" in output_of(cut(raw, out, "--shard", "2/3"))
    assert not list(out.rglob("*_slices.npy"))  # nothing to train on yet
    assert "shard 1/3: 1 cases cut now" in output_of(cut(raw, out, "--shard", "1/3"))
    text = output_of(cut(raw, out, "--shard", "3/3"))
    assert "cases: 5 (train 3, val 1, test 1), 0 cut now, 5 done before" in text
    assert done.items() <= {path: path.stat().st_mtime_ns for path in out.rglob("*.npz")}.items()
    assert files_in(out, "run.json") == files_in(tmp_path / "one", "run.json")
    before = files_in(out)
    output_of(cut(raw, out, "--shard", "2/3"))  # leaves the lists alone
    assert before.items() <= files_in(out).items()


def test_slices_without_the_shard_that_never_came(raw: Path, tmp_path: Path) -> None:
    output_of(cut(raw, tmp_path / "one"))
    output_of(cut(raw, tmp_path / "several", "--shard", "2/2"))
    assert "3 cut now, 2 done before" in output_of(cut(raw, tmp_path / "several"))
    assert files_in(tmp_path / "several", "run.json") == files_in(tmp_path / "one", "run.json")


def test_slices_of_a_case_that_cannot_be_used(raw: Path, tmp_path: Path) -> None:
    broken = tmp_path / "raw"
    for number in range(4):
        kits_case(broken, number)
    (broken / "case_00002" / "imaging.nii.gz").write_bytes(b"nothing")
    for out, shards in (("one", [[]]), ("several", [["--shard", "1/2"], ["--shard", "2/2"]])):
        ended = [cut(broken, tmp_path / out, "--keep_going", *words) for words in shards]
        assert ended[-1].returncode == 2 and "case_00002" in ended[-1].stderr
    assert files_in(tmp_path / "several", "run.json") == files_in(tmp_path / "one", "run.json")


def test_work_for_one_process_is_refused(raw: Path, tmp_path: Path) -> None:
    assert "--resplit: is work for one" in error_of(cut(raw, tmp_path / "out", "--resplit", "--shard", "1/2"))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As a scheduler starts them, which says so."""
    monkeypatch.setenv("SLURM_PROCID", "1")
    yield


def predict(raw: Path, ckpt: Path, out: Path, *words: object) -> Done:
    words = ("--ckpt", ckpt, "--inpath", raw, "--outpath", out, "--device", "cpu", *words)
    return in_process("scripts/predict.py", *words)


@pytest.mark.usefixtures("processes")
def test_predictions(raw: Path, ckpt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import engine.prediction.run as prediction

    with monkeypatch.context() as patch:
        patch.delenv("SLURM_PROCID")
        output_of(predict(raw, ckpt, tmp_path / "one"))
    out = tmp_path / "several"
    with monkeypatch.context() as patch:
        patch.setattr(prediction, "predict_volume", killed_after(1, prediction.predict_volume))
        assert predict(raw, ckpt, out, "--shard", "1/2").returncode == 130
    done = {path: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    assert len(done) == 1
    output_of(predict(raw, ckpt, out, "--shard", "2/2"))
    assert not (out / "run.json").exists()
    assert "1 of 3 cases are done" in output_of(predict(raw, ckpt, out, "--shard", "1/2"))
    assert done.items() <= {path: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}.items()
    measured = ("run.json", "volumes.csv", "volumes.json")
    assert files_in(out, *measured) == files_in(tmp_path / "one", *measured)
    assert without_seconds(out / "volumes.csv") == without_seconds(tmp_path / "one" / "volumes.csv")
    record = json.loads((out / "run.json").read_text())
    shards = {name: record["launches"][case["launch"]]["command"][-3:] for name, case in record["cases"].items()}
    assert list(shards.values()) == ["1/2", "2/2", "1/2", "2/2", "1/2"]


def test_a_prediction_that_fails_stands_in_the_tables(ckpt: Path, tmp_path: Path) -> None:
    broken = tmp_path / "raw"
    for number in range(2):
        kits_case(broken, number)
    (broken / "case_00001" / "imaging.nii.gz").write_bytes(b"nothing")
    output_of(predict(broken, ckpt, tmp_path / "out", "--shard", "1/2"))
    assert "1 of 2 cases could not be predicted" in error_of(predict(broken, ckpt, tmp_path / "out", "--shard", "2/2"))
    assert "failed: " in (tmp_path / "out" / "volumes.csv").read_text()


def evaluate(raw: Path, ckpt: Path, out: Path, *words: object) -> Done:
    words = ("--ckpt", ckpt, "--inpath", raw, "--outpath", out / "r.json", "--device", "cpu", *words)
    return in_process("scripts/evaluate.py", *words)


@contextmanager
def killed_after_scoring(cases: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "score_cases", killed_after(cases, evaluation.score_cases))
        yield


def test_scores(raw: Path, tmp_path: Path, ckpt: Path) -> None:
    output_of(evaluate(raw, ckpt, tmp_path / "one"))
    out = tmp_path / "several"
    with killed_after_scoring(2):
        assert evaluate(raw, ckpt, out, "--shard", "1/2").returncode == 130
    with killed_after_scoring(1):
        text = output_of(evaluate(raw, ckpt, out, "--shard", "1/2"))
    assert "3 cases, 2 of them scored before" in text and not (out / "r.json").exists()
    with killed_after_scoring(2):
        output_of(evaluate(raw, ckpt, out, "--shard", "2/2"))
    assert without_seconds(out / "r.csv") == without_seconds(tmp_path / "one" / "r.csv")
    one, several = (json.loads((folder / "r.json").read_text()) for folder in (tmp_path / "one", out))
    for measured in ("seconds", "slices_per_second", "command"):
        assert measured in one and one.pop(measured) is not None and several.pop(measured) is not None
    assert one == several and list(one["digests"]) == list(several["digests"])
    assert files_in(out).keys() == {"r.json", "r.csv"}


def test_a_case_that_was_edited_is_scored_again(ckpt: Path, tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "several"
    for number in range(4):
        kits_case(raw, number)
    output_of(evaluate(raw, ckpt, out, "--shard", "1/2"))
    for number in (0, 1):  # one that was scored, and one that was not
        kits_case(raw, number, tumor=False)
    (raw / "case_00002" / "segmentation.nii.gz").touch()  # the same content
    assert "2 cases, 1 of them scored before" in output_of(evaluate(raw, ckpt, out, "--shard", "1/2"))
    output_of(evaluate(raw, ckpt, out))
    output_of(evaluate(raw, ckpt, tmp_path / "one"))
    assert without_seconds(out / "r.csv") == without_seconds(tmp_path / "one" / "r.csv")


def test_one_process_that_was_killed_goes_on(raw: Path, tmp_path: Path, ckpt: Path) -> None:
    with killed_after_scoring(3):
        assert evaluate(raw, ckpt, tmp_path).returncode == 130
    with killed_after_scoring(2):
        output_of(evaluate(raw, ckpt, tmp_path))


def test_one_process_that_was_killed_goes_on_as_shards(raw: Path, tmp_path: Path, ckpt: Path) -> None:
    with killed_after_scoring(3):
        assert evaluate(raw, ckpt, tmp_path).returncode == 130
    output_of(evaluate(raw, ckpt, tmp_path, "--shard", "1/2", "--threshold", 0.3))  # of another, which leaves it there
    with killed_after_scoring(2):
        assert "3 cases, 2 of them scored before" in output_of(evaluate(raw, ckpt, tmp_path, "--shard", "1/2"))
        output_of(evaluate(raw, ckpt, tmp_path, "--shard", "2/2"))
    output_of(evaluate(raw, ckpt, tmp_path / "one"))
    assert without_seconds(tmp_path / "r.csv") == without_seconds(tmp_path / "one" / "r.csv")


@pytest.mark.usefixtures("processes")
def test_answers(raw: Path, ckpt: Path, tmp_path: Path) -> None:
    for out, shards in (("one", ["1/1"]), ("several", ["2/2", "1/2"])):
        for shard in shards:
            words = ("--ckpt", ckpt, "--inpath", raw, "--outpath", tmp_path / out, "--device", "cpu", "--shard", shard)
            output_of(in_process("scripts/answer.py", *words))
    measured = ("run.json", "volumes.csv", "volumes.json")
    assert files_in(tmp_path / "several", *measured) == files_in(tmp_path / "one", *measured)
    assert len(list((tmp_path / "several").glob("*.npz"))) == 5


def test_a_page_is_refused(raw: Path, ckpt: Path, tmp_path: Path) -> None:
    words = ("--shard", "1/2", "--report", tmp_path / "page.html")
    assert "scripts/report.py" in error_of(evaluate(raw, ckpt, tmp_path, *words))
