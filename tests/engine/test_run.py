"""A run as train.py and train_kd.py start it: what it refuses, what it tells, and the terms it records."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.frame import Frame
from datasets.slices.slice_folder import SliceFolder
from distillation import build_method
from distillation.task import Distiller, SupervisedTask, TrainingTask
from engine.options import Parser, data_options, training_options
from engine.segmenter import Segmenter
from engine.training.run import train
from engine.training.term_recorder import read_records
from engine.training.trainer import Trainer
from tests.small import SmallNetwork, write_bare_archive
from utils.errors import UserError


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> SliceFolder:
    return SliceFolder.open(write_bare_archive(tmp_path_factory.mktemp("slices")), "kits", "tumor")


def options(folder: Path, *words: str) -> argparse.Namespace:
    """Four steps, a validation after the second and after the last."""
    parser = Parser(None)
    data_options(parser)
    training_options(parser, epochs=1)
    length = ["--steps", "4", "--val_every", "2", "--batch_size", "4", "--device", "cpu"]
    return parser.parse_args([*length, "--checkpoint_path", str(folder), *words])


def network(width: int = 4, sees: int | None = None) -> SmallNetwork:
    """With fixed first weights; sees: the class that it finds everywhere, 0 or 1."""
    torch.manual_seed(0)
    made = SmallNetwork(2, width)
    if sees is not None:
        torch.nn.init.zeros_(made.head.weight)
        made.head.bias.data = 9.0 * torch.nn.functional.one_hot(torch.tensor(sees), 2)
    return made


def start(slices: SliceFolder, args: argparse.Namespace, task: TrainingTask, frame: Frame | None = None) -> Trainer:
    segmenter = Segmenter(task.network, "small", "kits", slices.label_map, frame or Frame(64, 0), (-200.0, 300.0))
    return train(args, task, segmenter, slices, "kits_tumor_small")


def distil(slices: SliceFolder, folder: Path, *words: str) -> Trainer:
    """With every step's terms recorded."""
    student, teacher = network(), network(6)
    args = options(folder, *words)
    args.record_terms = 1
    return start(slices, args, Distiller(student, teacher, build_method(["kd"], student.channels, teacher.channels)))


def test_what_the_options_became_is_told(
    slices: SliceFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = start(slices, options(tmp_path), SupervisedTask(network()))
    told = dict(line.strip().split("  ", 1) for line in capsys.readouterr().out.splitlines() if "  " in line.strip())
    assert (told["amp"], told["device"]) == ("off", "cpu")
    assert told["fingerprint of slices"] == trainer.config["slices"] and trainer.config["amp"] == "auto"


@pytest.mark.parametrize(("frame", "told"), [(Frame(64, 96), True), (Frame(64, 0), False), (Frame(0, 96), False)])
def test_a_crop_that_pads_every_slice_is_told(
    slices: SliceFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], frame: Frame, told: bool
) -> None:
    start(slices, options(tmp_path), SupervisedTask(network()), frame)
    assert ("note: --crop 96 is larger than --size 64" in capsys.readouterr().err) == told


@pytest.mark.parametrize(("sees", "told"), [(0, True), (1, False)])
def test_a_run_that_found_nothing_says_so(
    slices: SliceFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], sees: int, told: bool
) -> None:
    trainer = start(slices, options(tmp_path, "--lr", "1e-6"), SupervisedTask(network(sees=sees)))
    assert (trainer.progress.best == 0) == told
    assert ("note: the best validation Dice is 0" in capsys.readouterr().err) == told


def test_nothing_to_resume_is_the_first_and_only_word(
    slices: SliceFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(UserError, match=f"^nothing to resume in {folder}; leave --resume out$"):
        start(slices, options(folder, "--resume"), SupervisedTask(network()))
    assert capsys.readouterr().out == "" and not folder.exists()


@pytest.fixture(scope="module")
def terms(slices: SliceFolder, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a run records that nothing disturbs."""
    folder = tmp_path_factory.mktemp("terms")
    distil(slices, folder)
    assert [record["step"] for record in read_records(folder / "terms.jsonl")] == [0, 1, 2, 3]
    return (folder / "terms.jsonl").read_text()


def test_a_killed_and_resumed_run_records_each_step_once(
    slices: SliceFolder, tmp_path: Path, terms: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the third step, in the middle of a line; last.ckpt stands at the second."""
    path, step = tmp_path / "terms.jsonl", Trainer.step

    def killed(trainer: Trainer, batch: Any) -> dict[str, torch.Tensor]:
        done = step(trainer, batch)
        if len(read_records(path)) == 3:
            raise SystemExit
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", killed)
        with pytest.raises(SystemExit):
            distil(slices, tmp_path)
    with path.open("a") as file:
        file.write('{"step": 3, "val')
    distil(slices, tmp_path, "--resume")
    assert path.read_text() == terms


def test_a_new_run_does_not_go_on_with_an_old_one_s(slices: SliceFolder, tmp_path: Path, terms: str) -> None:
    (tmp_path / "terms.jsonl").write_text(terms)
    distil(slices, tmp_path)
    assert (tmp_path / "terms.jsonl").read_text() == terms
