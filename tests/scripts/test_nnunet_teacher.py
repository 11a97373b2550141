"""A network of nnU-Net teaches in train_kd.py and in the benchmark, as a user types it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from networks import NETWORKS
from tests.commands import error_of, in_process, output_of
from tests.data import cut_slices, kits_case
from tests.nnunet import write_model_folder
from utils.files import read_json

# Not bf16: on processors with AMX, PyTorch's gradients of such small maps are not always finite.
SHORT = ("--amp", "off", "--steps", 2, "--batch_size", 4, "--device", "cpu", "--task", "organ")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Slices of KiTS cases in train and test, and a model folder."""
    folder = tmp_path_factory.mktemp("nnunet")
    for number in range(6):
        kits_case(folder / "raw", number)
    cut_slices(folder / "raw", folder / "slices", task="organ", test_fraction=0.34, val_fraction=0.34)
    write_model_folder(folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "tiny", "tests.engine.benchmark.tiny:tiny")
        yield folder


def words(job: Path, out: str, *more: object) -> tuple[object, ...]:
    where = ("--train_data_path", job / "slices", "--checkpoint_path", job / out, "--smodel", "tiny", *SHORT)
    return ("--tckpt", f"nnunet:{job / 'model'}:0", *where, *more)


def test_a_student_learns_stages_and_logits_from_it(job: Path) -> None:
    text = output_of(in_process("train_kd.py", *words(job, "student", "--kd", "hlfd", "kd")))
    assert "of its labels, background is 0 (background), organ is 1 (kidney) and 2 (tumor)" in text
    assert "KL(t_logits -> s_logits)" in text and "AT(t_e5 -> s_e2)" in text
    content = torch.load(job / "student" / "best.ckpt", weights_only=True)
    # The whole slice, at the size that most images of the plans had.
    assert content["frame"] == {"size": 40, "crop": 0} and content["window"] == [-200.0, 300.0]
    history = read_json(job / "student" / "history.json")
    assert all(entry["validation_loss"]["loss"] > 0 for entry in history if "validation_loss" in entry)


def test_its_answers_decide_what_the_student_becomes(job: Path) -> None:
    weights = []
    for name in ("model", "other"):
        if name == "other":
            write_model_folder(job / "other", trainer_name="nnUNetTrainer")
            plans = read_json(job / "other" / "plans.json")
            plans["foreground_intensity_properties_per_channel"]["0"]["mean"] = 400.0
            (job / "other" / "plans.json").write_text(json.dumps(plans))
        given = list(words(job, f"by_{name}", "--kd", "kd:100"))
        given[1] = f"nnunet:{job / name}"
        output_of(in_process("train_kd.py", *given))
        weights.append(torch.load(job / f"by_{name}" / "last.ckpt", weights_only=True)["weights"])
    assert any(not torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def test_another_view_than_its_own_is_noted(job: Path) -> None:
    done = in_process("train_kd.py", *words(job, "noted", "--kd", "kd", "--size", 20, "--crop", 16))
    assert done.returncode == 0, done.stderr
    assert "the teacher is shown slices unlike those it was trained on: size 20, not 40" in done.stderr


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--mixup", 0.2), "--mixup: a teacher of nnU-Net answers for slices as they are stored, not mixed"),
        (("--tckpt", "nnunet:nowhere"), r"nowhere: is no model folder of nnU-Net"),
        (("--tckpt", "nnunet:{job}/model:3"), "has no trained fold 3, but 0"),
    ],
)
def test_what_it_cannot_do_is_one_line(job: Path, more: tuple[object, ...], message: str) -> None:
    more = tuple(str(word).format(job=job) for word in more)
    assert message in error_of(in_process("train_kd.py", *words(job, "refused", *more)))
    assert not (job / "refused").exists()


def test_weights_of_another_network_than_the_planned_one_are_refused(job: Path) -> None:
    plans = read_json(write_model_folder(job / "unlike") / "plans.json")
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["n_conv_per_stage"] = [2, 1, 2, 1]
    (job / "unlike" / "plans.json").write_text(json.dumps(plans))
    error = error_of(in_process("train_kd.py", *words(job, "refused", "--tckpt", f"nnunet:{job / 'unlike'}")))
    assert "its weights do not fit plans.json: 4 lacking (encoder.stages.0.0.convs.1.conv.weight" in error
    assert error.rstrip().endswith("--teacher_probabilities") and not (job / "refused").exists()


def test_it_is_scored_beside_its_students_in_a_benchmark(job: Path) -> None:
    text = output_of(in_process(
        "scripts/benchmark.py", "--teacher", f"nnunet:{job / 'model'}", "--smodel", "tiny", "--methods", "kd",
        "--seeds", 0, "--longer", 0, "--no_distances", "--train_data_path", job / "slices",
        "--also_test", job / "raw", "--outpath", job / "bench", *SHORT,
    ))  # fmt: skip
    assert "FAILED" not in text
    # A step that cannot be timed is left out without a word.
    assert read_json(job / "bench" / "costs.json")["steps"]["tiny"].keys() >= {"kd"}
    teacher = read_json(job / "bench" / "teacher.json")
    assert len(teacher["rows"]) == 2 and all(0 <= row["dice"] <= 1 for row in teacher["rows"])
    # Raw cases of the same names give the same scores as their slices.
    also = {row["case"]: row["dice"] for row in next(iter(teacher["also"].values()))}
    assert {row["case"]: row["dice"] for row in teacher["rows"]}.items() <= also.items()
