"""Cross-validation with a teacher for each fold, and scores on other data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from datasets.slices.slice_folder import SliceFolder
from datasets.splits import load_split
from engine.benchmark.folds import draw_folds
from engine.benchmark.rows import EQUAL_TIME, LONGER, UNDISTILLED
from tests.data import cut_slices, kits_case
from tests.engine.benchmark.tiny import TRAINING, Command, table
from utils.errors import UserError
from utils.files import read_json

NAMES = [f"{case:05d}" for case in range(6)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six cases cut with every slice, the same with few, and two raw cases of another hospital."""
    folder = tmp_path_factory.mktemp("folds")
    for case in range(6):
        kits_case(folder / "raw", case)
    for case in range(2):
        kits_case(folder / "elsewhere", 10 + case)
    cut_slices(folder / "raw", folder / "slices", slices="all")
    cut_slices(folder / "raw", folder / "few")
    return folder


def words(data: Path, out: str, *more: object, slices: str = "slices") -> tuple[object, ...]:
    where = ("--train_data_path", data / slices, "--outpath", data / out, "--size", 64, "--crop", 0)
    what = ("--smodel", "tiny", "--seeds", 0, "--no_distances", "--longer", 2, "--val_fraction", 0.25)
    return (*where, *what, "--train_teacher", "tiny_teacher", *TRAINING, *more)


@pytest.fixture(scope="module")
def bench(data: Path, run: Command) -> Path:
    """A finished benchmark of three folds, scored elsewhere too."""
    command = words(data, "bench", "--folds", 3, "--methods", "kd", "--also_test", data / "elsewhere")
    run("scripts/benchmark.py", *command, "--teacher_steps", 3)
    return data / "bench"


def test_every_case_is_tested_once_by_networks_that_never_saw_it(bench: Path) -> None:
    rows = table(bench / "cases.csv")
    for method in ("teacher", UNDISTILLED, LONGER, "kd"):
        own = [row for row in rows if (row["method"], row["data"]) == (method, "")]
        assert sorted(row["case"] for row in own) == NAMES
        for fold in range(3):
            split = load_split(bench / "folds" / f"{fold}_of_3.json")
            assert sorted(split.names) == NAMES
            assert sorted(row["case"] for row in own if row["fold"] == str(fold)) == split.test
    for path in (*bench.glob("runs/tiny/*/fold_*"), *bench.glob("teachers/fold_*")):
        split = load_split(bench / "folds" / f"{path.name.split('_')[1]}_of_3.json")
        seen = torch.load(path / "best.ckpt", weights_only=True)["cases"]
        assert (sorted(seen["train"]), sorted(seen["val"])) == (split.train, split.val)
    assert len(list(bench.glob("runs/tiny/*/fold_*"))) == 9 and len(list(bench.glob("teachers/*"))) == 3


def test_teachers_train_as_long_as_they_were_asked_to(bench: Path) -> None:
    assert {read_json(path)["steps"] for path in bench.glob("teachers/*/result.json")} == {3}
    assert {row["steps"] for row in table(bench / "results.csv") if row["method"] == "kd"} == {"2"}


def test_other_data_have_a_table_of_their_own(bench: Path) -> None:
    text = (bench / "results.md").read_text()
    own, _, away = text.partition("## tiny, on elsewhere")
    assert "| kd |" in own and "| kd |" in away and "Scores of 6 test cases of folds 0, 1, 2, which" in own
    rows = [row for row in table(bench / "cases.csv") if row["data"] == "elsewhere"]
    assert {row["case"] for row in rows} == {"00010", "00011"}
    assert len(rows) == 2 * (3 + 9)  # by each of three teachers and nine students
    of_kd = [float(row["dice"]) for row in rows if (row["method"], row["fold"]) == ("kd", "1")]
    (run,) = (row for row in table(bench / "results.csv") if (row["method"], row["fold"]) == ("kd", "1"))
    assert float(run["elsewhere dice"]) == pytest.approx(sum(of_kd) / 2, rel=1e-4)


def test_rows_say_how_large_the_distillation_is(bench: Path) -> None:
    runs = {row["method"]: row for row in table(bench / "results.csv")}
    assert float(runs["kd"]["gradient_start"]) > 0 and float(runs["kd"]["gradient_end"]) > 0
    assert runs[UNDISTILLED]["gradient_start"] == ""


def test_a_finished_benchmark_is_scored_on_further_data_without_training(bench: Path, data: Path, run: Command) -> None:
    def trained() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in bench.rglob("best.ckpt")}

    before = trained()
    further = (data / "elsewhere", data / "slices")
    command = words(data, "bench", "--folds", 3, "--teacher_steps", 3, "--methods", "kd", "--also_test", *further)
    run("scripts/benchmark.py", *command)
    assert trained() == before
    assert "## tiny, on slices" in (bench / "results.md").read_text()


def test_another_folder_of_the_same_name_is_scored_itself(bench: Path, data: Path, run: Command) -> None:
    for case in range(2):
        kits_case(data / "other" / "elsewhere", 20 + case)
    shared = ("--folds", 3, "--teacher_steps", 3, "--methods", "kd")
    run("scripts/benchmark.py", *words(data, "bench", *shared, "--also_test", data / "other" / "elsewhere"))
    rows = [row for row in table(bench / "cases.csv") if row["data"] == "elsewhere"]
    assert {row["case"] for row in rows} == {"00020", "00021"}
    run("scripts/benchmark.py", *words(data, "bench", *shared, "--also_test", data / "elsewhere"))
    rows = [row for row in table(bench / "cases.csv") if row["data"] == "elsewhere"]
    assert {row["case"] for row in rows} == {"00010", "00011"}


def test_a_report_of_one_fold_trains_no_teacher_and_shows_that_fold(data: Path, run: Command) -> None:
    shared = words(data, "partial", "--folds", 3, "--methods", "kd")
    run("scripts/benchmark.py", *shared, "--fold", 1)
    run("scripts/benchmark.py", *shared, "--report")
    out = data / "partial"
    assert [path.name for path in (out / "teachers").iterdir()] == ["fold_1_tiny_teacher"]
    assert "Scores of 2 test cases of fold 1, which" in (out / "results.md").read_text()
    assert {row["fold"] for row in table(out / "cases.csv")} == {"1"}
    with pytest.raises(UserError, match="no run is finished yet"):
        run("scripts/benchmark.py", *shared, "--fold", 2, "--report")


def test_rows_of_equal_time_train_for_the_time_of_the_longer_row(
    data: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(fold: object, student: str, row: object) -> dict[str, float]:
        ratio = 1.0 if row.name == UNDISTILLED else 1.25  # type: ignore[attr-defined]
        return {"ms": 10.0 * ratio, "ratio": ratio, "memory": 2.0**20}

    monkeypatch.setattr("engine.benchmark.costs.time_step", timed)
    command = words(data, "timed", "--folds", 3, "--fold", 1, "--methods", "kd", "--matched", "both", "--steps", 5)
    run("scripts/benchmark.py", *command)
    runs = {row["method"]: row for row in table(data / "timed" / "results.csv")}
    assert list(runs) == [UNDISTILLED, LONGER, "kd", f"kd{EQUAL_TIME}"] and {row["fold"] for row in runs.values()} == {
        "1"
    }
    assert [row["steps"] for row in runs.values()] == ["5", "10", "5", "8"]
    assert [float(row["training_time"]) for row in runs.values()] == [1, 2, 1.25, 2]


def test_a_teacher_can_be_trained_on_the_slices_own_division(data: Path, run: Command) -> None:
    cut_slices(data / "raw", data / "divided", test_fraction=0.3, val_fraction=0.2)
    run("scripts/benchmark.py", *words(data, "single", "--methods", "kd", slices="divided"))
    split = load_split(data / "divided" / "splits.json")
    rows = table(data / "single" / "cases.csv")
    assert {row["case"] for row in rows} == set(split.test) and {row["fold"] for row in rows} == {"0"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--folds", 3, "--train_data_path", "few"), "lacks slices of .* cut them with --slices all"),
        (("--folds", 7), "6 patients are too few"),
        (("--folds", 1), "leaves no case to train on"),
        (("--fold", 0), "there are 0 folds"),
        (("--folds", 2, "--fold", 2), "there are 2 folds, numbered from 0"),
        (("--folds", 3, "--also_test", "nowhere"), "nowhere: is no folder"),
        (("--folds", 3, "--teacher_steps", 4), "was begun with steps = 3, not 4"),
        (("--folds", 3, "--also_test", "empty"), "empty: .*expected"),
        (("--folds", 3, "--init", "bench/teachers/fold_1_tiny_teacher/best.ckpt"), "was trained or chosen on"),
        (("--folds", 3, "--init", "none.ckpt"), "none.ckpt"),
        (("--folds", 3, "--smodel", "malunet", "--init", "teacher"), "no block of it fits malunet"),
        (("--folds", 3, "--test_data_path", "few"), "use --also_test in place of test data"),
        (("--folds", 4, "--val_fraction", 0), "has no case left to train or to validate on"),
        (("--folds", 3, "--val_fraction", 0.5), "divides other cases, or otherwise"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    bench: Path, data: Path, run: Command, monkeypatch: pytest.MonkeyPatch, given: tuple[object, ...], message: str
) -> None:
    monkeypatch.chdir(data)
    Path("empty").mkdir(exist_ok=True)
    with pytest.raises(UserError, match=message):
        run("scripts/benchmark.py", *words(data, "bench", "--methods", "kd", *given))


def test_a_teacher_is_named_once(data: Path, run: Command) -> None:
    where = ("--train_data_path", data / "slices", "--outpath", data / "none")
    with pytest.raises(UserError, match="who is the teacher"):
        run("scripts/benchmark.py", *where)
    with pytest.raises(UserError, match="not allowed with argument"):
        run("scripts/benchmark.py", *where, "--tckpt", "best.ckpt", "--train_teacher", "unet")
    with pytest.raises(UserError, match="--size: is the teacher's"):
        run("scripts/benchmark.py", *where, "--tckpt", "best.ckpt", "--size", 64)


def test_folds_keep_a_patient_s_cases_together() -> None:
    cases = [f"patient{number:03d}_frame{frame:02d}" for number in range(10) for frame in (1, 12)]
    folds = draw_folds(cases, 3, 0.2)
    assert sorted(case for split in folds for case in split.test) == cases
    for split in folds:
        assert split.val and sorted(split.names) == cases
        for part in (split.train, split.val, split.test):
            assert all(case.replace("_frame01", "_frame12") in part for case in part)


def test_slices_can_be_divided_by_a_file(data: Path, bench: Path) -> None:
    path = bench / "folds" / "0_of_3.json"
    slices = SliceFolder.open(data / "slices", "kits", "tumor").with_split(path)
    split = load_split(path)
    assert {name.partition("_")[0] for name in slices.train} == set(split.train)
    assert (slices.val_cases, slices.test_cases) == (split.val, split.test)
    with pytest.raises(UserError, match=r"lacks slices of case .* cut the slices with --slices all"):
        SliceFolder.open(data / "few", "kits", "tumor").with_split(path)
