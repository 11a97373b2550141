"""The benchmark end to end with networks that train in a moment, and the pool that runs it in parallel."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datasets.frame import Frame
from datasets.labelled_cases import cases_in_slices
from datasets.slices.slice_folder import SliceFolder
from distillation import METHODS
from distillation.method import Method
from engine.benchmark.rows import LONGER, UNDISTILLED
from engine.evaluation.score import score_case
from engine.evaluation.summaries import mean_dice
from engine.saved_segmenter import load_segmenter
from engine.segmenter import Segmenter
from networks.contract import Features
from tests.engine.benchmark.tiny import TRAINING, Command, table, tiny_teacher
from tests.small import equal_states, write_bare_archive
from utils.batch import Batch
from utils.errors import UserError
from utils.files import read_json, write_json

BENCHMARK = ("--smodel", "tiny", "--seeds", 1, 0, "--longer", 1.5, "--no_distances", *TRAINING)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, run: Command) -> Path:
    """Slices of four cases in train, of three others, one of them cut short, in test; a teacher that saw neither."""
    folder = tmp_path_factory.mktemp("benchmark")
    write_bare_archive(folder / "slices" / "train", cases=4)
    test = write_bare_archive(folder / "slices" / "test", cases=7)
    for case in range(4):
        for path in test.glob(f"{case:05d}_*.npz"):
            path.unlink()
    (test / "00004_0.npz").unlink()
    slices = SliceFolder.open(folder / "slices", "kits", "tumor")
    torch.manual_seed(7)
    teacher = Segmenter(tiny_teacher(2, False), "tiny_teacher", "kits", slices.label_map, Frame(64, 0), (-200.0, 300.0))
    weights, seen = teacher.network.state_dict(), {"train": [], "val": []}
    torch.save({**teacher.description(), "weights": weights, "config": {}, "cases": seen}, folder / "teacher.ckpt")
    return folder


def words(data: Path, out: str, *methods: str) -> tuple[object, ...]:
    where = ("--tckpt", data / "teacher.ckpt", "--train_data_path", data / "slices", "--outpath", data / out)
    return (*where, *BENCHMARK, "--methods", *methods)


@pytest.fixture(scope="module")
def bench(data: Path, run: Command) -> Path:
    """A finished benchmark of one student, one method and two seeds."""
    run("scripts/benchmark.py", *words(data, "bench", "hlfd"))
    return data / "bench"


def scores(out: Path) -> str:
    """results.md without what is measured."""
    text = (out / "results.md").read_text()
    return text.partition("| training cost")[0]


def test_every_student_method_and_seed_is_scored_on_the_test_cases(bench: Path, data: Path) -> None:
    runs = table(bench / "results.csv")
    assert [(row["method"], row["seed"], row["steps"]) for row in runs] == [
        (UNDISTILLED, "0", "2"), (UNDISTILLED, "1", "2"), (LONGER, "0", "3"), (LONGER, "1", "3"),
        ("hlfd", "0", "2"), ("hlfd", "1", "2"),
    ]  # fmt: skip
    cases = table(bench / "cases.csv")
    assert {row["case"] for row in cases} == {"00004", "00005", "00006"}
    assert len(cases) == 3 * (1 + len(runs))
    best = bench / "runs" / "tiny" / "hlfd" / "seed_1" / "best.ckpt"
    segmenter, _ = load_segmenter(best, torch.device("cpu"))
    slices = SliceFolder.open(data / "slices", "kits", "tumor", "test")
    rows = [row for case in cases_in_slices(slices, slices.cases, None) for row in score_case(segmenter, case)]
    assert float(runs[5]["dice"]) == pytest.approx(mean_dice(rows), rel=1e-5)
    of_cases = [float(row["dice"]) for row in cases if (row["method"], row["seed"]) == ("hlfd", "1")]
    assert np.mean(of_cases) == pytest.approx(mean_dice(rows), rel=1e-5)


def test_the_tables_and_the_page_answer_what_a_reader_asks(bench: Path) -> None:
    text, page = (bench / "results.md").read_text(), (bench / "index.html").read_text()
    runs = table(bench / "results.csv")
    dice = {name: np.mean([float(r["dice"]) for r in runs if r["method"] == name]) for name in (UNDISTILLED, "hlfd")}
    line = next(line for line in text.splitlines() if line.startswith("| hlfd | 0."))
    assert f"| {dice['hlfd'] - dice[UNDISTILLED]:+.3f} |" in line
    assert "times the steps: tiny 1.5" in text
    assert "With 3 cases no p in this table can be below 0.500." in text
    notice = "1 of them lacks slices, so it is not a whole volume."
    assert notice in text and notice in page
    for row in ("teacher", UNDISTILLED, "hlfd"):
        plot = re.search(
            rf"agreement of volumes: {row}, tumor: Bland-Altman plot .* over 3 cases: bias (\S+) voxels", page
        )
        cases = [each for each in table(bench / "cases.csv") if each["method"] == row]
        apart = [float(each["predicted_voxels"]) - float(each["reference_voxels"]) for each in cases]
        assert plot and float(plot[1]) == pytest.approx(np.mean(apart), rel=0.01, abs=0.5)
    assert 'src="data:image/png;base64,' in page and "://" not in page and "Holm" in page


def test_a_finished_benchmark_is_not_run_again_and_grows(bench: Path, data: Path, run: Command) -> None:
    def written() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (bench / "runs").rglob("*") if path.is_file()}

    before, report = written(), (bench / "results.md").read_text()
    run("scripts/benchmark.py", *words(data, "bench", "hlfd"))
    assert written() == before and (bench / "results.md").read_text() == report
    run("scripts/benchmark.py", *words(data, "bench", "hlfd", "skd/at:0.5"))
    assert before.items() <= written().items()
    assert "| skd/at:0.5 |" in (bench / "results.md").read_text()


def test_a_step_s_time_is_measured_again_for_other_conditions(bench: Path, data: Path, run: Command) -> None:
    costs = read_json(bench / "costs.json")
    timed = costs["steps"]["tiny"]["hlfd"]
    write_json(bench / "costs.json", costs | {"steps": {"tiny": {"hlfd": {**timed, "ms": -1.0, "amp": "bf16"}}}})
    run("scripts/benchmark.py", *words(data, "bench", "hlfd"))
    again = read_json(bench / "costs.json")["steps"]["tiny"]
    assert again["hlfd"]["ms"] > 0 and again["hlfd"]["amp"] == "off" and set(again) == {UNDISTILLED, "hlfd"}


def test_training_alone_takes_as_long_as_the_slowest_method(
    data: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    ratios = {UNDISTILLED: 1.0, "hlfd": 1.41, "kd": 1.2}

    def timed(fold: Any, student: str, row: Any) -> dict[str, float]:
        return {"ms": 10.0 * ratios[row.name], "ratio": ratios[row.name], "memory": 2.0**20}

    monkeypatch.setattr("engine.benchmark.costs.time_step", timed)
    where = ("--tckpt", data / "teacher.ckpt", "--train_data_path", data / "slices", "--outpath", data / "timed")
    length = ("--smodel", "tiny", "--seeds", 0, "--no_distances", "--preset", "full", *TRAINING)
    run("scripts/benchmark.py", *where, *length, "--methods", "hlfd", "kd")
    assert read_json(data / "timed" / "costs.json")["lengths"] == {"tiny": {LONGER: 1.5}}
    runs = table(data / "timed" / "results.csv")
    assert [row["steps"] for row in runs if row["method"] == LONGER] == ["3"]


def test_undistilled_rows_begin_with_the_teacher_s_weights_too(data: Path, run: Command) -> None:
    where = ("--tckpt", data / "teacher.ckpt", "--train_data_path", data / "slices", "--outpath", data / "begun")
    length = ("--smodel", "tiny_teacher", "--seeds", 0, "--longer", 0, "--no_distances", *TRAINING)
    run("scripts/benchmark.py", *where, *length, "--methods", "kd", "--init", "teacher")
    checkpoints = list((data / "begun" / "runs").rglob("best.ckpt"))
    begun = {load_segmenter(path, torch.device("cpu"))[1]["config"]["init"] for path in checkpoints}
    assert len(checkpoints) == 2 and len(begun) == 1
    assert begun.pop().startswith("100 % of tiny_teacher's parameters from weights ")


def test_gains_can_be_over_any_row(bench: Path, data: Path, run: Command) -> None:
    before = (bench / "results.md").read_text()
    run("scripts/benchmark.py", *words(data, "bench", "hlfd"), "--report", "--against", "hlfd")
    over_hlfd = (bench / "results.md").read_text()
    run("scripts/benchmark.py", *words(data, "bench", "hlfd"), "--report")
    assert (bench / "results.md").read_text() == before

    def gain(text: str, name: str) -> str:
        return next(line for line in text.splitlines() if line.startswith(f"| {name} | 0.")).split(" | ")[2]

    assert float(gain(over_hlfd, UNDISTILLED)) == -float(gain(before, "hlfd")) and gain(over_hlfd, "hlfd") == ""


def test_the_same_command_gives_the_same_scores(bench: Path, data: Path, run: Command) -> None:
    run("scripts/benchmark.py", *words(data, "again", "hlfd"))
    run("scripts/benchmark.py", *words(data, "bench", "hlfd"))
    assert scores(bench) == scores(data / "again")
    assert (bench / "cases.csv").read_bytes() == (data / "again" / "cases.csv").read_bytes()


def test_an_undistilled_run_is_train_py_s(bench: Path, data: Path, run: Command) -> None:
    run(
        "train.py", "--model", "tiny", "--train_data_path", data / "slices", "--checkpoint_path", data / "alone",
        "--size", 64, "--crop", 0, "--seed", 1, "--amp", "off", *TRAINING,
    )  # fmt: skip
    mine, theirs = (
        torch.load(folder / "best.ckpt", weights_only=True)["weights"]
        for folder in (bench / "runs" / "tiny" / UNDISTILLED / "seed_1", data / "alone")
    )
    assert equal_states(mine, theirs)


def test_a_report_lists_the_finished_runs_and_trains_none(bench: Path, data: Path, run: Command) -> None:
    report, runs = (bench / "results.md").read_text(), sorted((bench / "runs").rglob("*"))
    run("scripts/benchmark.py", *words(data, "bench", "hlfd", "fitnet"), "--report")
    assert (bench / "results.md").read_text() == report and sorted((bench / "runs").rglob("*")) == runs
    with pytest.raises(UserError, match="nothing: holds no benchmark yet"):
        run("scripts/benchmark.py", *words(data, "nothing", "hlfd"), "--report")


class Broken(Method):
    """Can be built, but not trained with."""

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        raise ValueError("it cannot")

    def equation(self) -> str:
        return "broken(t_e5 -> s_e5)"


def test_a_failing_method_costs_only_itself(data: Path, run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "broken", "tests.engine.benchmark.test_benchmark:Broken")
    with pytest.raises(UserError, match=r"2 of 8 runs failed .* tiny broken: ValueError: it cannot"):
        run("scripts/benchmark.py", *words(data, "failing", "broken", "hlfd"))
    text = (data / "failing" / "results.md").read_text()
    assert "| hlfd |" in text and "broken" not in text
    assert "ValueError" in (data / "failing" / "runs" / "tiny" / "broken" / "seed_0" / "train.log").read_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--lr", 0.02), r"seed_0: was begun with lr = 0\.01, not 0\.02"),
        (("--methods", "hlvd"), "there is no distillation method 'hlvd'"),
        (("--test_data_path", "slices/train"), "4 of its 4 cases train or choose the students"),
        (("--validation_only",), "has no validation cases set apart"),
        (("--epochs", 1), "not allowed with argument"),
        (("--longer", 2), r"tiny trained alone for 1\.5 times the steps, not 2; give --longer 1\.5"),
        (("--methods", "hlfd/balance=-1"), "balance must be a number at least 0, not -1"),
        (("--methods", "kd/unlabelled"), "a row with /unlabelled needs slices"),
        (("--against", "kd"), "is no row of this benchmark"),
        (("--methods", "kd,temprature=2"), "kd has no option temprature; it has "),
        (("--methods", "at,layers=e9"), "there is no stage 'e9'"),
    ],
)
def test_what_would_mislead_is_refused(
    bench: Path, data: Path, run: Command, monkeypatch: pytest.MonkeyPatch, given: tuple[object, ...], message: str
) -> None:
    monkeypatch.chdir(data)
    with pytest.raises(UserError, match=message):
        run("scripts/benchmark.py", *words(data, "bench", "hlfd"), *given)


def test_scores_of_one_thread_do_not_stand_next_to_those_of_several(
    bench: Path, data: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    with pytest.raises(UserError, match=r"was begun with threads = \d+, not 77; give the same --jobs"):
        run("scripts/benchmark.py", *words(data, "bench", "hlfd"))
    before = (data / "bench" / "cases.csv").read_text()
    run("scripts/benchmark.py", *words(data, "bench", "hlfd"), "--report")
    assert (data / "bench" / "cases.csv").read_text() == before


def test_runs_of_another_version_are_refused(bench: Path, data: Path, run: Command) -> None:
    path = bench / "runs" / "tiny" / "hlfd" / "seed_0" / "settings.json"
    settings = read_json(path)
    write_json(path, {key: value for key, value in settings.items() if key != "format"})
    with pytest.raises(UserError, match="seed_0: was begun by another version of this project"):
        run("scripts/benchmark.py", *words(data, "bench", "hlfd"))
    write_json(path, settings)


def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    bench: Path, data: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.training.trainer import Trainer

    step = Trainer.step

    def interrupted(trainer: Trainer, batch: Any) -> Any:
        trainer.interruption.requested = "hlfd" in str(trainer.folder.path) and trainer.progress.step == 0
        return step(trainer, batch)

    monkeypatch.setattr(Trainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("scripts/benchmark.py", *words(data, "stopped", "hlfd"))
    monkeypatch.undo()
    run("scripts/benchmark.py", *words(data, "stopped", "hlfd"))
    folders = [out / "runs" / "tiny" / "hlfd" / "seed_0" for out in (bench, data / "stopped")]
    mine, theirs = (read_json(folder / "result.json") for folder in folders)
    for row in (*mine["rows"], *theirs["rows"]):
        del row["seconds"]
    assert mine["rows"] == theirs["rows"]


def test_a_row_can_distil_on_slices_without_masks_too(data: Path, run: Command) -> None:
    joining = write_bare_archive(data / "joining", cases=8)
    for case in range(7):  # the others' cases
        for path in joining.glob(f"{case:05d}_*.npz"):
            path.unlink()
    run("scripts/benchmark.py", *words(data, "joined", "kd", "kd/unlabelled"), "--unlabelled", joining)
    folders = [data / "joined" / "runs" / "tiny" / name / "seed_0" for name in ("kd", "kd_unlabelled")]
    alone, joined = (read_json(folder / "result.json") for folder in folders)
    assert alone["rows"] != joined["rows"]
    assert "unlabelled" not in alone and len(joined["unlabelled"]) == 12
    assert f"of 1 cases in {joining.resolve()}" in (folders[1] / "train.log").read_text()
    epochs = ("--smodel", "tiny", "--seeds", 0, "--longer", 0, "--epochs", 2, "--batch_size", 2, "--lr", 0.01)
    where = words(data, "epochs", "kd", "kd/unlabelled")[:6]
    run("scripts/benchmark.py", *where, *epochs, "--methods", "kd", "kd/unlabelled", "--unlabelled", joining)
    assert len({row["steps"] for row in table(data / "epochs" / "results.csv")}) == 1
    histories = [read_json(path) for path in (data / "epochs" / "runs").glob("*/*/*/history.json")]
    assert len(histories) == 3
    assert all([each["lr"] for each in history] == [each["lr"] for each in histories[0]] for history in histories)
    next(joining.glob("00007_*.npz")).unlink()
    with pytest.raises(UserError, match="kd_unlabelled/seed_0: was begun with unlabelled = "):
        run("scripts/benchmark.py", *words(data, "joined", "kd", "kd/unlabelled"), "--unlabelled", joining)
