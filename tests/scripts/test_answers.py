"""A teacher that is asked once: raw cases, answer.py, SliceMaker.py, train_kd.py, benchmark.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.frame import Frame
from datasets.labels import organ_and_tumor
from datasets.slices.answers import FLOOR, StoredAnswers
from datasets.slices.slice_folder import SliceFolder
from distillation import parse_methods
from engine.options import DataOptions, DistillationOptions, RunOptions, TrainingOptions
from engine.saved_segmenter import load_segmenter
from engine.training.run import decide_data, make_trainer
from networks import NETWORKS
from tests.answers import answer_masks
from tests.commands import Done, error_of, in_process, output_of
from tests.data import ct_and_label, kits_case, save, voxels
from tests.small import save_untrained
from utils.files import read_json

ALL = organ_and_tumor()["all"]
TRAINING = ("--steps", 2, "--batch_size", 2, "--size", 32, "--crop", 0, "--device", "cpu", "--workers", 0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four raw cases, one of them without a mask, a network for slices of any size, and its answers, cut."""
    root = tmp_path_factory.mktemp("answers")
    for number in range(4):
        kits_case(root / "raw", number, (8, 32, 48))
    (root / "raw" / "case_00003" / "segmentation.nii.gz").unlink()
    save_untrained(root / "native.ckpt", ALL, Frame(0, 0))
    output_of(answer(root, root / "answers", root / "native.ckpt"))
    output_of(cut(root, root / "answers", "--unlabelled", 1))
    return root


def answer(root: Path, out: Path, *words: object) -> Done:
    return in_process(
        "scripts/answer.py", "--inpath", root / "raw", "--outpath", out, "--device", "cpu", "--ckpt", *words
    )


def cut(root: Path, answers: Path, *words: object, out: str = "slices") -> Done:
    where = ("--inpath", root / "raw", "--outpath", root / out, "--dataset", "kits", "--task", "all", "--workers", 1)
    parts = ("--val_fraction", 0.3, "--test_fraction", 0.3)
    return in_process("scripts/SliceMaker.py", *where, *parts, "--teacher_probabilities", answers, *words)


def distil(root: Path, out: Path, *words: object, answers: str = "slices") -> Done:
    where = ("--teacher_probabilities", root / answers, "--train_data_path", root / "slices", "--checkpoint_path", out)
    return in_process("train_kd.py", "--smodel", "enet", *where, *TRAINING, *words)


def probabilities(folder: Path, case: str = "00000") -> np.ndarray:
    with np.load(folder / f"{case}.npz") as content:
        return np.asarray(content["probabilities"])


def test_answers_are_the_mean_of_checkpoints_and_flips_without_their_decision(root: Path, tmp_path: Path) -> None:
    save_untrained(tmp_path / "a.ckpt", ALL, Frame(0, 0), offsets=(3.0, -3.0))
    save_untrained(tmp_path / "b.ckpt", ALL, Frame(32, 28))
    output_of(answer(root, tmp_path / "a", tmp_path / "a.ckpt"))
    output_of(answer(root, tmp_path / "b", tmp_path / "b.ckpt"))
    output_of(answer(root, tmp_path / "both", tmp_path / "a.ckpt", tmp_path / "b.ckpt"))
    one, other, both = (probabilities(tmp_path / name) for name in ("a", "b", "both"))
    np.testing.assert_array_equal(one, probabilities(root / "answers"))
    np.testing.assert_allclose(both, (one + other) / 2, atol=1e-6)
    assert np.abs(one - other).max() > 0.01
    np.testing.assert_array_equal(voxels(tmp_path / "both" / "00000.nii.gz"), both.argmax(axis=0).T)

    output_of(answer(root, tmp_path / "flips", tmp_path / "a.ckpt", "--flips"))
    network = load_segmenter(tmp_path / "a.ckpt", torch.device("cpu"))[0].network
    image = (torch.from_numpy(ct_and_label((8, 32, 48), 0)[0].clip(-200, 300).astype(np.float32)) + 200) / 250 - 1
    axes = ((), (2,), (3,), (2, 3))
    with torch.no_grad():
        expected = torch.stack([network(image[:, None].flip(a)).softmax(1).flip(a) for a in axes]).mean(0)
    # Stored I, P, L: the first axis of the file runs from the last slice to the first, and is the last of the array.
    found = probabilities(tmp_path / "flips").transpose(0, 3, 2, 1)[:, ::-1]
    np.testing.assert_allclose(found, expected.transpose(0, 1), atol=1e-5)


def test_answer_goes_on_where_it_was_stopped_and_refuses_networks_that_do_not_fit(root: Path, tmp_path: Path) -> None:
    again = output_of(answer(root, root / "answers", root / "native.ckpt"))
    assert "4 of 4 cases are done" in again
    save_untrained(tmp_path / "organ.ckpt", organ_and_tumor()["organ"], Frame(0, 0))
    line = error_of(answer(root, tmp_path / "x", root / "native.ckpt", tmp_path / "organ.ckpt"))
    assert "organ.ckpt: its task is organ, and that of" in line
    assert "is the name of a file" in error_of(answer(root, tmp_path / "x.nii.gz", root / "native.ckpt"))


def test_stored_answers_teach_what_the_network_does(root: Path, tmp_path: Path) -> None:
    """At native size and without augmentation, through half precision: each term to 1 % of itself."""
    teacher, _ = load_segmenter(root / "native.ckpt", torch.device("cpu"))
    data = DataOptions(train_data_path=root / "slices", augment="none", size=0, crop=0)
    training = TrainingOptions(steps=2, batch_size=4, workers=0, device="cpu", checkpoint_path=tmp_path)
    stored = StoredAnswers.open([root / "slices"])
    methods = parse_methods(["kd", "kd_soft", "dkd", "dist", "lskd", "dice_semimetric"])
    unlabelled = (root / "slices" / "unlabelled",)

    def first_terms(online: bool) -> dict[str, float]:
        of_teacher = {"tckpt": root / "native.ckpt"} if online else {"teacher_probabilities": (root / "slices",)}
        distillation = DistillationOptions(**of_teacher, methods=methods, unlabelled=unlabelled)
        decided = decide_data(data, teacher if online else None, None if online else stored)
        assert (decided.dataset, decided.task) == ("kits", "all")
        trainer = make_trainer(RunOptions("enet", decided, training, distillation), teacher if online else None)
        batch = next(iter(trainer.loader))
        if not online:
            with torch.no_grad():
                logs = teacher.network(batch.image).log_softmax(dim=1)
            assert batch.answers is not None
            assert float((batch.answers - logs.clamp(min=FLOOR)).abs().max()) <= 2**-8
        trainer.task.eval()
        return {term: float(value.detach()) for term, value in trainer.task(batch).items()}

    assert first_terms(online=True) == pytest.approx(first_terms(online=False), rel=0.01, abs=1e-3)


def test_a_student_is_distilled_from_disk(root: Path, tmp_path: Path) -> None:
    printed = output_of(distil(root, tmp_path / "one", "--kd", "kd", "dist", "--unlabelled", root / "slices"))
    assert "fingerprint of teacher" in printed and "best validation Dice" in printed
    image = root / "raw" / "case_00003"
    words = (
        "--ckpt",
        tmp_path / "one" / "best.ckpt",
        "--inpath",
        image / "imaging.nii.gz",
        "--outpath",
        tmp_path / "p",
    )
    output_of(in_process("scripts/predict.py", *words, "--device", "cpu"))
    assert voxels(tmp_path / "p" / "00003.nii.gz").shape == voxels(image / "imaging.nii.gz").shape
    answers = root / "slices" / "answers" / "all"
    output_of(distil(root, tmp_path / "two", "--kd", "kd", "--mixup", 0.4, answers=str(answers.relative_to(root))))


def test_what_cannot_be_distilled_from_disk_is_refused(root: Path, tmp_path: Path) -> None:
    assert "hlfd: compares stages of the teacher's network" in error_of(distil(root, tmp_path / "a"))
    assert "cwd: sees what is added to all logits" in error_of(distil(root, tmp_path / "a", "--kd", "kd", "cwd"))
    assert "--init teacher: answers on disk have no weights" in error_of(
        distil(root, tmp_path / "a", "--kd", "kd", "--init", "teacher")
    )
    line = error_of(distil(root, tmp_path / "a", "--kd", "kd", answers="answers"))
    assert "holds no answers to slices; cut them: python scripts/SliceMaker.py" in line
    assert "no answers for that task" in error_of(distil(root, tmp_path / "a", "--kd", "kd", "--task", "organ"))
    both = error_of(distil(root, tmp_path / "a", "--kd", "kd", "--tckpt", root / "native.ckpt"))
    assert "not allowed with argument" in both
    none = error_of(in_process("train_kd.py", "--smodel", "enet"))
    assert "who is the teacher?" in none and "--teacher_probabilities" in none
    assert not (tmp_path / "a").exists()


def test_answers_to_another_image_of_the_name_are_refused(root: Path, tmp_path: Path) -> None:
    for number in range(3):
        kits_case(tmp_path / "raw", number, (8, 32, 48))
    save(ct_and_label((8, 32, 48), seed=5)[0], tmp_path / "raw" / "case_00001" / "imaging.nii.gz")
    line = error_of(cut(tmp_path, root / "answers"))
    assert "00001.npz: answers for another image than" in line and "as run.json beside it says" in line


def test_a_benchmark_scores_the_teacher_by_its_answers(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NETWORKS, "tiny", "tests.small:tiny")
    answer_masks(root / "raw", tmp_path / "masks")
    (tmp_path / "raw").symlink_to(root / "raw")
    output_of(cut(tmp_path, tmp_path / "masks"))
    where = (
        "--train_data_path",
        tmp_path / "slices",
        "--outpath",
        tmp_path / "bench",
        "--smodel",
        "tiny",
        *TRAINING[:-2],
    )
    words = ("--teacher_probabilities", tmp_path / "slices", *where, "--longer", 0, "--seeds", 0, "--no_distances")
    for _ in range(2):
        printed = output_of(in_process("scripts/benchmark.py", *words, "--methods", "kd", "dist"))
    assert "2 of them finished before" not in printed and "3 runs, 3 of them finished before" in printed
    teacher = read_json(tmp_path / "bench" / "teacher.json")
    (test,) = SliceFolder.open(tmp_path / "slices", "kits", "all", "test").cases
    assert {(row["case"], row["region"]): row["dice"] for row in teacher["rows"]} == {
        (test, "organ"): 1,
        (test, "tumor"): 1,
    }
    assert all(row["slice_dice"] > 0.9 for row in teacher["rows"])
    assert "teacher, answers on disk" in (tmp_path / "bench" / "results.md").read_text()
    refused = error_of(in_process("scripts/benchmark.py", *words, "--methods", "hlfd"))
    assert "hlfd: compares stages of the teacher's network" in refused
    also = error_of(in_process("scripts/benchmark.py", *words, "--methods", "kd", "--also_test", root / "raw"))
    assert "--also_test: a teacher on disk has answered for its own slices alone" in also
    folds = error_of(in_process("scripts/benchmark.py", *words, "--methods", "kd", "--folds", 2))
    assert "--folds: each fold needs a teacher that has not seen its test cases" in folds
