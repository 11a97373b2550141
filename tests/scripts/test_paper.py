"""The paper's experiment end to end on phantoms, with networks that train in a moment."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from datasets.raw import open_layout
from datasets.slices.slice_folder import slice_files
from datasets.slicing.options import SliceMakerOptions
from datasets.splits import load_split
from distillation import ALIASES
from engine.benchmark.rows import read_row
from engine.paper.disk import DiskEstimate, estimate_disk, require_disk
from engine.paper.table import COLUMNS
from networks import NETWORKS
from phantoms.files import make_phantoms
from phantoms.recipe import Recipe
from tests.commands import Done, error_of, in_process, output_of
from tests.data import cut_slices
from tests.engine.benchmark.tiny import table
from tests.paths import SCRIPTS
from utils.errors import UserError
from utils.files import read_json
from utils.options import Parser

METHODS = ("--methods", "recursive_feedback_ours", "deep_kd", "hlfd_published")
NETWORKS_AND_FRAME = ("--train_teacher", "tiny_teacher", "--smodel", "tiny", "--size", 64, "--crop", 0)
TRAINING = ("--epochs", 1, "--teacher_epochs", 2, "--batch_size", 8, "--workers", 0, "--device", "cpu")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Six cases; tiny networks have names for as long as they are there."""
    folder = tmp_path_factory.mktemp("paper")
    make_phantoms(folder / "raw", Recipe("kits", size=64, slices=(6, 8)), cases=6)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("tiny", "tiny_teacher"):
            patch.setitem(NETWORKS, name, f"tests.engine.benchmark.tiny:{name}")
        patch.setattr("engine.benchmark.costs.TURNS", 1)
        yield folder / "raw"
    signal.signal(signal.SIGTERM, before)


def paper(raw: Path, out: Path, *words: object) -> Done:
    where = ("--inpath", raw, "--dataset", "kits", "--outpath", out)
    return in_process("scripts/paper.py", *where, *NETWORKS_AND_FRAME, *TRAINING, *words)


@pytest.fixture(scope="module")
def finished(raw: Path) -> tuple[Path, str]:
    """The folder of an experiment of one seed and three losses, and what the command printed."""
    out = raw.parent / "out"
    return out, output_of(paper(raw, out, "--seeds", 0, *METHODS))


def test_every_published_loss_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    script = import_module("paper")
    (options,) = Parser(None).read(script.PaperOptions, words=["--inpath", "raw"])
    of_code = {"recursive_feedback_ours", "cat_feedback_ours", "indv_feedback", "deep_kd", "wo_feedback", "attn_kd"}
    assert {read_row(name).name for name in options.rows} == {"hlfd_published", *(ALIASES[name] for name in of_code)}
    assert options.seeds == (0, 1, 2) and replace(options, without_published=True).rows == options.rows[:-1]


def test_each_row_is_scored_by_both_protocols(finished: tuple[Path, str]) -> None:
    out, printed = finished
    lines = table(out / "paper.csv")
    rows = ["undistilled", "hlfd", "deep", "hlfd_published"]
    assert [line["training"] for line in lines] == ["teacher, tiny_teacher", *(f"tiny {name}" for name in rows)]
    assert [line["published_as"] for line in lines] == ["", "", "recursive_feedback_ours", "deep_kd", ""]
    result = read_json(out / "benchmark" / "runs" / "tiny" / "deep" / "seed_0" / "result.json")["rows"]
    deep = next(line for line in lines if line["training"] == "tiny deep")
    for metric in ("slice_dice", "slice_rvd", "slice_published_voe", "dice", "argmax_dice", "voe"):
        mean = sum(entry[metric] for entry in result) / len(result)
        assert float(deep[f"{metric}_mean"]) == pytest.approx(mean, rel=1e-4, abs=1e-6), metric
    text = (out / "paper.md").read_text()
    assert all(title in text and title in printed for title in COLUMNS)
    assert "| tiny hlfd | recursive_feedback_ours |" in text


def test_the_teacher_trains_for_its_own_epochs(finished: tuple[Path, str]) -> None:
    benchmark = finished[0] / "benchmark"
    teacher = read_json(benchmark / "teachers" / "tiny_teacher" / "result.json")
    student = read_json(benchmark / "runs" / "tiny" / "hlfd" / "seed_0" / "result.json")
    assert teacher["steps"] == 2 * student["steps"]
    assert teacher["augment"] == student["augment"] == "paper" and student["lr"] == 1e-3


def test_it_says_what_differs_from_the_paper(finished: tuple[Path, str]) -> None:
    out, printed = finished
    text = (out / "paper.md").read_text()
    notice = next(line for line in text.splitlines() if line.startswith("What differs from the paper"))
    assert notice in printed
    for part in ("4 train, 1 pick", "1 test", "1 seed(s) (0)", "--lr 0.001 (published: 0.01)", "--epochs 1 (published"):
        assert part in notice
    assert "--augment" not in notice


def test_what_it_takes_is_said_before_it_starts(finished: tuple[Path, str]) -> None:
    printed = finished[1]
    disk, free, *_ = printed.splitlines()
    assert disk.startswith("slices: 0.0 GB to 0.0 GB for 6 cases") and free.startswith("free disk: ")
    assert printed.index("together") < printed.index("training the teacher")
    first = next(line for line in printed.splitlines() if line.startswith("hlfd_published  "))
    assert first.split()[1] == "1", "one run is left"


def test_a_second_call_trains_nothing_and_another_seed_only_its_own(raw: Path, finished: tuple[Path, str]) -> None:
    out = finished[0]
    before = {path: path.stat().st_mtime_ns for path in (out / "benchmark").rglob("result.json")}
    again = output_of(paper(raw, out, "--seeds", 0, *METHODS))
    assert "slices: all cases are cut" in again and "4 runs, 4 of them finished before" in again
    more = output_of(paper(raw, out, "--seeds", 0, 1, "--methods", "recursive_feedback_ours"))
    assert "4 runs, 2 of them finished before" in more
    assert {path: path.stat().st_mtime_ns for path in before} == before
    line = next(line for line in table(out / "paper.csv") if line["training"] == "tiny hlfd")
    assert line["runs"] == "2" and float(line["dice_std"]) >= 0


def test_estimate_cuts_and_times_and_trains_nothing(raw: Path, tmp_path: Path) -> None:
    printed = output_of(
        paper(
            raw,
            tmp_path / "out",
            "--estimate",
            "--longer",
            2,
            "--without_published",
            "--methods",
            "hlfd",
            "hlfd_published",
        )
    )
    assert "undistilled, longer" in printed and "hlfd_published" not in printed
    (hlfd,) = (line.split() for line in printed.splitlines() if line.startswith("hlfd  "))
    (longer,) = (line.split() for line in printed.splitlines() if line.startswith("undistilled, longer  "))
    assert hlfd[1] == "3" and int(longer[3]) == 2 * int(hlfd[2])
    assert not list(tmp_path.rglob("best.ckpt"))


def test_a_wrong_name_is_said_before_anything_is_cut(raw: Path, tmp_path: Path) -> None:
    for words in (("--methods", "nonsense"), ("--smodel", "nonsense"), ("--device", "nonsense")):
        assert "nonsense" in error_of(paper(raw, tmp_path / "out", *words))
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_said_in_one_line_before_anything_is_written(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    line = error_of(paper(raw, tmp_path / "out"))
    assert "the slices need at least" in line and not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"at least 2\.0 GB and 0\.0 GB are free"):
        require_disk(DiskEstimate(1, 1, 2 * 10**9, 3 * 10**9), tmp_path)
    assert require_disk(DiskEstimate(0, 0, 0, 0), tmp_path / "a" / "b") == 10_000


def test_the_disk_is_estimated_from_headers_and_the_split(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "slices"
    make_phantoms(raw, Recipe("lits", size=32, slices=(5, 9), tumour_free=0), cases=5)
    layout, options = open_layout("lits", raw), SliceMakerOptions(test_fraction=0.2, negatives=0.5, workers=1)
    estimate = estimate_disk(raw, out, layout, layout.label_map("tumor"), options)
    assert not out.exists(), "nothing is written"
    cut_slices(raw, out, "lits", test_fraction=0.2, negatives=0.5)
    split = load_split(out / "splits.json")
    counts = {
        case: entry["slices"]
        for part in ("train", "test")
        for case, entry in read_json(out / part / "cases.json")["cases"].items()
    }
    at_least = sum(round(0.5 * count) if case in split.train else count for case, count in counts.items())
    assert estimate == (5, sum(counts.values()), 3 * 32 * 32 * at_least, 3 * 32 * 32 * sum(counts.values()))
    assert at_least <= sum(len(slice_files(folder)) for folder in (out / "train", out / "test")) <= sum(counts.values())
    assert estimate_disk(raw, out, layout, layout.label_map("tumor"), options).cases == 0
    assert estimate_disk(raw, out, layout, layout.label_map("organ"), options).cases == 5, "another task's slices"
