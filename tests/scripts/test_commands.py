"""The commands as a user types them, from raw NIfTI to a written segmentation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from tests.commands import as_process, error_of, in_process, output_of
from tests.paths import ROOT
from tests.small import equal_states, write_bare_archive


def succeed(script: str, *words: object) -> str:
    return output_of(in_process(script, *words))


def fail(script: str, *words: object) -> str:
    return error_of(in_process(script, *words))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the main commands have run: phantoms, slices, a teacher, a distilled student."""
    out = tmp_path_factory.mktemp("job")
    output_of(as_process(
        "scripts/make_phantom.py", "--outpath", out / "raw", "--dataset", "kits", "--cases", 4, "--size", 64,
        "--slices", 8, 9, "--unlabelled", 1,
    ))  # fmt: skip
    output_of(as_process(
        "scripts/SliceMaker.py", "--inpath", out / "raw", "--outpath", out / "slices", "--dataset", "kits",
        "--task", "tumor", "--test_fraction", 0.25, "--val_fraction", 0.25,
    ))  # fmt: skip
    teacher = output_of(as_process(
        "train.py", "--model", "RAUNet", "--train-data-path", out / "slices", "--checkpoint_path", out / "teacher",
        "--size", 64, "--crop", 0, "--epochs", 1, "--device", "cpu",
    ))  # fmt: skip
    assert "0.5 focal + 0.5 (1 - Dice)" in teacher
    student = output_of(as_process(
        "train_kd.py", "--tckpt", out / "teacher" / "best.ckpt", "--smodel", "resnet_18", "--train_data_path",
        out / "slices", "--checkpoint_path", out / "student", "--epochs", 1, "--device", "cpu",
    ))  # fmt: skip
    assert "AT(t_e5 -> s_e2)" in student
    yield out


def test_checkpoints_are_where_the_readme_says(job: Path) -> None:
    assert (job / "student" / "last.ckpt").exists()
    assert [f.name for f in (job / "student").glob("checkpoint_*")] == [
        "checkpoint_kits_tumor_kd_resnet_18_hlfd_1.ckpt"
    ]
    teacher, student = (torch.load(job / name / "best.ckpt", weights_only=True) for name in ("teacher", "student"))
    inherited = ("dataset", "task", "frame", "window", "classes")
    assert [teacher[key] for key in inherited] == [student[key] for key in inherited]
    assert not any(key.startswith(("method", "adapters")) for key in student["weights"])
    (method,) = json.loads((job / "student" / "config.json").read_text())["kd"]
    assert method.startswith("hlfd") and "alpha=0.1" in method


def test_evaluation_of_whole_volumes(job: Path) -> None:
    out = job / "results" / "test.json"
    succeed(
        "scripts/evaluate.py", "--ckpt", job / "student" / "best.ckpt", "--inpath", job / "raw",
        "--splits", job / "slices" / "splits.json", "--outpath", out, "--device", "cpu",
    )  # fmt: skip
    result = json.loads(out.read_text())
    assert result["protocol"] == "whole volumes" and result["cases"] == 1
    assert {"dice", "voe", "rvd", "hd95_mm", "assd_mm", "nsd_1mm", "lesion_f1"} <= set(result["regions"]["tumor"])
    assert result["parameters"] == pytest.approx(11.17e6, rel=1e-3)
    assert len(out.with_suffix(".csv").read_text().splitlines()) == 2


def test_the_slice_protocol_is_labelled(job: Path) -> None:
    out = job / "results" / "published.json"
    printed = succeed(
        "scripts/evaluate.py", "--ckpt", job / "teacher" / "best.ckpt", "--test_data_path", job / "slices",
        "--slice_protocol", "--outpath", out, "--device", "cpu",
    )  # fmt: skip
    assert "slice protocol" in printed
    assert set(json.loads(out.read_text())["regions"]["tumor"]) == {"dice", "published_voe", "rvd"}


def test_each_part_of_a_split_is_scored_on_its_own_slices(job: Path) -> None:
    splits, out = job / "slices" / "splits.json", job / "results" / "val.json"
    words = [
        "--ckpt",
        job / "teacher" / "best.ckpt",
        "--test_data_path",
        job / "slices",
        "--outpath",
        out,
        "--device",
        "cpu",
    ]
    succeed("scripts/evaluate.py", *words, "--splits", splits, "--part", "val", "--slice_protocol")
    (case,) = json.loads(splits.read_text())["val"]
    assert out.with_suffix(".csv").read_text().splitlines()[1].startswith(f"{case},")
    assert "--part val: of which split?" in fail("scripts/evaluate.py", *words, "--part", "val")


def test_prediction_keeps_the_geometry(job: Path, tmp_path: Path) -> None:
    source = nib.load(job / "raw" / "case_00000" / "imaging.nii.gz")
    flipped = tmp_path / "flipped.nii.gz"
    nib.save(source.slicer[:, ::-1, :], flipped)
    for name, path in (("00000", job / "raw" / "case_00000" / "imaging.nii.gz"), ("flipped", flipped)):
        succeed(
            "scripts/predict.py", "--ckpt", job / "teacher" / "best.ckpt", "--inpath", path,
            "--outpath", tmp_path / "out", "--threshold", 0.3, "--device", "cpu",
        )  # fmt: skip
        written, image = nib.load(tmp_path / "out" / f"{name}.nii.gz"), nib.load(path)
        assert written.shape == image.shape and written.get_data_dtype() == np.uint8
        assert np.array_equal(written.affine, image.affine)
        assert set(np.unique(written.dataobj)) <= {0, 2}
    straight, turned = (np.asarray(nib.load(tmp_path / "out" / f"{n}.nii.gz").dataobj) for n in ("00000", "flipped"))
    assert np.array_equal(straight[:, ::-1, :], turned)
    assert straight.any()


def test_prediction_of_a_folder_takes_unlabelled_cases(job: Path, tmp_path: Path) -> None:
    succeed(
        "scripts/predict.py", "--ckpt", job / "student" / "best.ckpt", "--inpath", job / "raw", "--outpath", tmp_path,
        "--largest_component", 2, "--device", "cpu",
    )  # fmt: skip
    assert len(list(tmp_path.glob("*.nii.gz"))) == 5


def test_unlabelled_slices_join_a_distillation(job: Path, tmp_path: Path) -> None:
    cut = ("scripts/SliceMaker.py", "--inpath", job / "raw", "--outpath", job / "slices", "--dataset", "kits")
    succeed(*cut, "--task", "tumor", "--unlabelled", 1.0)
    printed = succeed(
        "train_kd.py", "--tckpt", job / "teacher" / "best.ckpt", "--smodel", "malunet", "--kd", "kd:0.5,temperature=2",
        "fitnet,layers=e4", "--unlabelled", job / "slices", "--kd_schedule", "decay", "--balance", 0.5,
        "--record_terms", 2,
        "--train_data_path", job / "slices", "--checkpoint_path", tmp_path, "--steps", 3, "--batch_size", 4,
        "--device", "cpu",
    )  # fmt: skip
    assert "decay balanced to 0.5 (0.5 [KL(t_logits -> s_logits)] + [" in printed
    assert "unlabelled slices" in printed
    records = [json.loads(line) for line in (tmp_path / "terms.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [0, 2]
    succeed("scripts/plot_terms.py", "--checkpoint_path", tmp_path, "--outpath", tmp_path / "figures" / "terms.png")
    assert (tmp_path / "figures" / "terms.png").read_bytes().startswith(b"\x89PNG")
    drawn = ("--run", tmp_path / "terms.jsonl", "--outpath")
    succeed("scripts/plot_terms.py", *drawn, tmp_path / "terms.SVG")
    assert "terms.xyz: must end in one of " in fail("scripts/plot_terms.py", *drawn, tmp_path / "terms.xyz")
    (tmp_path / "terms.jsonl").write_text("")
    assert "terms.jsonl: holds no step yet" in fail("scripts/plot_terms.py", *drawn, tmp_path / "terms.png")


def test_methods_are_listed_with_their_options() -> None:
    listed = succeed("train_kd.py", "--list_methods")
    assert "cwd_features" in listed and "layers=e5 weight=50 temperature=4" in listed
    assert all(line.strip() for line in listed.splitlines())


def test_mode_test_scores_the_best_checkpoint(job: Path) -> None:
    printed = succeed(
        "train.py", "--mode", "test", "--checkpoint_path", job / "student", "--test_data_path", job / "slices",
        "--device", "cpu",
    )  # fmt: skip
    assert f"{job / 'student' / 'best.ckpt'}: resnet_18 for task tumor of kits" in printed
    assert "archived slices of 1 cases, 1 of them complete" in printed and "slice protocol" in printed
    written = json.loads((job / "student" / "test.json").read_text())
    assert (written["model"], written["seen_in_training"]) == ("resnet_18", [])


def test_mode_test_refuses_another_network_data_set_or_task(job: Path) -> None:
    words = ["--mode", "test", "--checkpoint_path", job / "teacher", "--test_data_path", job / "slices"]
    assert "was trained with --dataset kits, not lits" in fail("train.py", *words, "--dataset", "lits")
    assert "was trained with --task tumor, not organ" in fail("train.py", *words, "--task", "organ")
    assert "was trained with --model raunet, not resnet_18" in fail("train.py", *words, "--model", "ResNet18")
    words += ["--tckpt", job / "teacher" / "best.ckpt", "--smodel", "malunet"]
    assert "was trained with --smodel raunet, not malunet" in fail("train_kd.py", *words)


def test_a_teacher_that_never_found_the_target_is_noted(job: Path, tmp_path: Path) -> None:
    teacher = torch.load(job / "teacher" / "best.ckpt", weights_only=True)
    for dice, noted in ((0.0, True), (0.1, False)):
        path = tmp_path / f"teacher_{dice}.ckpt"
        torch.save({**teacher, "metrics": {"dice": dice}}, path)
        words = ["--smodel", "malunet", "--train_data_path", job / "slices", "--checkpoint_path", tmp_path / str(dice)]
        done = in_process("train_kd.py", "--tckpt", path, *words, "--steps", 1, "--batch_size", 2, "--device", "cpu")
        assert done.returncode == 0 and ("its validation Dice was 0" in done.stderr) == noted


def test_the_published_archive_trains_as_it_is(tmp_path: Path) -> None:
    printed = succeed(
        "train.py", "--model", "resnet18", "--train_data_path", write_bare_archive(tmp_path / "archive"),
        "--checkpoint_path", tmp_path / "run", "--size", 64, "--crop", 0, "--epochs", 1, "--device", "cpu",
    )  # fmt: skip
    assert "1 of 4 cases validate now" in printed


def test_a_finished_run_is_not_overwritten(job: Path) -> None:
    words = ["--train_data_path", job / "slices", "--checkpoint_path", job / "teacher", "--size", 64, "--crop", 0]
    assert "add --resume" in fail("train.py", *words, "--epochs", 1, "--device", "cpu")
    assert "was trained with steps = " in fail("train.py", *words, "--epochs", 2, "--resume", "--device", "cpu")


def test_other_data_or_another_task_is_not_taken_for_the_same(job: Path, tmp_path: Path) -> None:
    slices = write_bare_archive(tmp_path / "other")
    words = ["--train_data_path", slices, "--size", 64, "--crop", 0, "--epochs", 1, "--device", "cpu"]
    assert "slices = " in fail("train.py", *words, "--checkpoint_path", job / "teacher", "--resume")
    (slices / "kits_organ_slices.npy").write_bytes((slices / "kits_tumor_slices.npy").read_bytes())
    kd = ["--tckpt", job / "teacher" / "best.ckpt", "--checkpoint_path", tmp_path / "kd"]
    assert "was trained for task tumor of kits, not for task organ" in fail(
        "train_kd.py", *kd, *words, "--task", "organ"
    )
    assert not (tmp_path / "kd").exists()


def test_scoring_cases_that_trained_the_network_is_noted(job: Path, tmp_path: Path) -> None:
    words = ["--ckpt", job / "teacher" / "best.ckpt", "--inpath", job / "raw", "--device", "cpu"]
    done = in_process("scripts/evaluate.py", *words, "--outpath", tmp_path / "all.json")
    assert "3 of these 4 cases chose or trained the network" in done.stderr
    assert len(json.loads((tmp_path / "all.json").read_text())["seen_in_training"]) == 3
    assert "no labelled case 99999" in fail(
        "scripts/evaluate.py", *words, "--outpath", tmp_path / "x.json", "--cases", 99999
    )
    archived = [
        "--ckpt",
        job / "teacher" / "best.ckpt",
        "--test_data_path",
        job / "slices",
        "--outpath",
        tmp_path / "x.json",
    ]
    assert "no slices of 99999" in fail("scripts/evaluate.py", *archived, "--cases", 99999, "--device", "cpu")


def test_prediction_never_overwrites_its_input_and_goes_on_after_a_bad_file(job: Path, tmp_path: Path) -> None:
    image = (job / "raw" / "case_00000" / "imaging.nii.gz").read_bytes()
    (tmp_path / "scan.nii.gz").write_bytes(image)
    words = ["--ckpt", job / "student" / "best.ckpt", "--inpath", tmp_path, "--device", "cpu"]
    assert "would overwrite" in fail("scripts/predict.py", *words, "--outpath", tmp_path)
    assert (tmp_path / "scan.nii.gz").read_bytes() == image
    (tmp_path / "damaged.nii.gz").write_bytes(image[: len(image) // 2])
    assert "1 of 2 cases could not be predicted" in fail("scripts/predict.py", *words, "--outpath", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("*.nii*")] == ["scan.nii.gz"]


def test_a_damaged_slice_is_named_from_a_loading_process_too(tmp_path: Path) -> None:
    slices = write_bare_archive(tmp_path / "archive")
    for path in slices.glob("00000_*.npz"):
        path.write_bytes(b"no slice")
    words = ["--train_data_path", slices, "--checkpoint_path", tmp_path / "run", "--size", 64, "--crop", 0]
    line = error_of(as_process("train.py", *words, "--model", "resnet_18", "--workers", 2, "--device", "cpu"))
    assert "is not a slice file" in line and "worker" not in line


def test_ctrl_c_and_resume_end_as_an_uninterrupted_run(tmp_path: Path) -> None:
    """Ctrl-C reaches the loading processes too."""
    words = ["--model", "resnet_18", "--train_data_path", write_bare_archive(tmp_path / "archive"), "--size", 64]
    words += ["--crop", 0, "--epochs", 3, "--batch_size", 4, "--workers", 2, "--device", "cpu"]
    succeed("train.py", *words, "--checkpoint_path", tmp_path / "uninterrupted")
    arguments = [sys.executable, "-u", ROOT / "train.py", *map(str, words), "--checkpoint_path", tmp_path / "parts"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(arguments, start_new_session=True, **streams) as run:
        next(line for line in run.stdout if line.startswith("step "))
        os.killpg(run.pid, signal.SIGINT)
        printed, errors = run.communicate()
    assert "--resume continues from" in printed and run.returncode == 130
    assert "Traceback" not in errors
    succeed("train.py", *words, "--checkpoint_path", tmp_path / "parts", "--resume")
    one, other = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("uninterrupted", "parts"))
    assert equal_states(one["weights"], other["weights"])


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("train.py", ["--model", "resnet_19"], "there is no network 'resnet_19': choose one of raunet"),
        ("train.py", ["--epoch", "3"], "unrecognized arguments: --epoch 3"),
        ("train.py", ["--train_data_path", "nowhere"], "python scripts/SliceMaker.py"),
        ("scripts/bench_step.py", ["--device", "nonsense"], "--device nonsense cannot be used here"),
        ("train.py", ["--lr", "nan"], "argument --lr: must be a number above 0, not nan"),
        ("train.py", ["--epochs", "0"], "argument --epochs: must be an integer of at least 1, not 0"),
        ("train_kd.py", ["--tckpt", "x", "--temperature", "0"], "argument --temperature: must be a number above 0"),
        ("train_kd.py", ["--tckpt", "x", "--kd", "hlfd", "--loss_type", "at"], "--kd and --loss_type"),
        ("train_kd.py", ["--tckpt", "x", "--kd", "kd/at"], "--kd kd/at: methods are separated by spaces here"),
        ("train_kd.py", ["--tckpt", "x", "--unlabelled_per_batch", "2"], "name their folder with --unlabelled DIR"),
        ("train_kd.py", ["--tckpt", "nowhere.ckpt"], "nowhere.ckpt: no such checkpoint"),
        ("train_kd.py", ["--tckpt", "README.md"], "README.md: is not a checkpoint"),
        ("train_kd.py", [], "--tckpt"),
        ("scripts/predict.py", ["--ckpt", "x", "--inpath", "y"], "--outpath"),
        ("scripts/predict.py", ["--ckpt", "x", "--inpath", "y", "--outpath", "README.md"], "README.md: cannot be used"),
        ("scripts/evaluate.py", ["--ckpt", "x", "--inpath", "y", "--outpath", "z.csv"], "z.csv: must end in .json"),
        ("scripts/SliceMaker.py", ["--inpath", "nowhere", "--outpath", "x"], "nowhere"),
        ("scripts/make_phantom.py", ["--outpath", "README.md"], "README.md: is a file"),
    ],
)
def test_bad_usage_is_one_line(script: str, words: list[str], message: str) -> None:
    assert message in fail(script, *words)


def test_a_real_command_ends_with_status_2_and_one_line() -> None:
    assert "nowhere.ckpt: no such checkpoint" in error_of(as_process("train_kd.py", "--tckpt", "nowhere.ckpt"))


@pytest.mark.parametrize(
    "script",
    ["train.py", "train_kd.py", *(f"scripts/{path.name}" for path in (ROOT / "scripts").glob("[a-zA-Z]*.py"))],
)
def test_help_runs_from_anywhere_and_loads_nothing_heavy(script: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", ROOT / script, "--help"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported and not imported & {"torch", "monai", "matplotlib"}
