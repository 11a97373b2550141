"""The way from options to a run: what it refuses, what it prints, and the terms it records."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets.frame import Frame
from datasets.slices.slice_folder import SliceFolder
from distillation import parse_methods
from distillation.specs import MethodSpec
from engine.device import Precision
from engine.evaluation.score import score_cases
from engine.options import DataOptions, DistillationOptions, RunOptions, TrainingOptions
from engine.saved_segmenter import load_segmenter
from engine.segmenter import Segmenter
from engine.training.run import decide_data, make_trainer, new_segmenter, train
from engine.training.term_recorder import read_records
from engine.training.trainer import Trainer
from networks import NETWORKS
from tests.small import SmallNetwork, equal_states, write_bare_archive
from tests.training import stop_after
from utils.errors import UserError
from utils.files import read_json
from utils.numbers import interval


def small(classes: int, pretrained: bool) -> SmallNetwork:
    return SmallNetwork(classes)


def sees_nothing(classes: int, pretrained: bool) -> SmallNetwork:
    return sees(classes, 0)


def sees_all(classes: int, pretrained: bool) -> SmallNetwork:
    return sees(classes, 1)


def sees(classes: int, found: int) -> SmallNetwork:
    """A network that finds one class everywhere."""
    network = SmallNetwork(classes)
    torch.nn.init.zeros_(network.head.weight)
    network.head.bias.data = 9.0 * torch.nn.functional.one_hot(torch.tensor(found), classes)
    return network


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("small", "sees_nothing", "sees_all"):
        monkeypatch.setitem(NETWORKS, name, f"{__name__}:{name}")


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> SliceFolder:
    return SliceFolder.open(write_bare_archive(tmp_path_factory.mktemp("slices")), "kits", "tumor")


def options(slices: SliceFolder, folder: Path, model: str = "small", **training: Any) -> RunOptions:
    """Four steps, a validation after the second and after the last."""
    data = DataOptions(train_data_path=slices.folder, size=64, crop=0)
    length: dict[str, Any] = {"steps": 4, "val_every": 2, "batch_size": 4, "device": "cpu"}
    return RunOptions(model, decide_data(data), TrainingOptions(checkpoint_path=folder, **length | training))


def new_teacher(slices: SliceFolder, width: int = 6) -> Segmenter:
    torch.manual_seed(1)
    return Segmenter(SmallNetwork(2, width), "small", "kits", slices.label_map, Frame(64, 0), (-200.0, 300.0))


def distil(slices: SliceFolder, folder: Path, **training: Any) -> Trainer:
    """With every step's terms recorded."""
    distillation = DistillationOptions(Path("teacher.ckpt"), record_terms=1, methods=parse_methods(["kd"]))
    run = replace(options(slices, folder, **training), distillation=distillation)
    return train(make_trainer(run, new_teacher(slices)))


def test_what_the_options_lead_to_is_printed(
    slices: SliceFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = train(make_trainer(options(slices, tmp_path)))
    lines = dict(line.strip().split("  ", 1) for line in capsys.readouterr().out.splitlines() if "  " in line.strip())
    assert (lines["amp"], lines["device"]) == (Precision("auto", torch.device("cpu")).name, "cpu")
    config = trainer.folder.config
    assert lines["fingerprint of slices"] == config["slices"] and config["amp"] == "auto"
    assert read_json(tmp_path / "config.json").items() >= config.items()


def test_where_and_how_fast_are_no_part_of_a_run_s_identity(slices: SliceFolder, tmp_path: Path) -> None:
    first = options(slices, tmp_path / "a")
    config = make_trainer(first).folder.config
    elsewhere = replace(first, training=replace(first.training, checkpoint_path=tmp_path / "b", workers=0))
    assert make_trainer(elsewhere).folder.config == config
    assert not {"checkpoint_path", "workers", "resume", "device", "mode", "train_data_path"} & config.keys()
    other = replace(first, training=replace(first.training, seed=1))
    assert make_trainer(other).folder.config != config


@pytest.mark.parametrize(("dataset", "is_ct"), [("kits", True), ("acdc", False)])
def test_whether_it_is_ct_goes_by_the_data_not_by_the_window_given(tmp_path: Path, dataset: str, is_ct: bool) -> None:
    slices = SliceFolder.open(write_bare_archive(tmp_path), dataset, "tumor" if is_ct else "myo")
    run = options(slices, tmp_path / "run")
    segmenter, _ = new_segmenter(replace(run, data=replace(run.data, window=(0.0, 1000.0))), slices)
    assert segmenter.hounsfield is is_ct and segmenter.window == (0.0, 1000.0)


def test_the_window_in_force_counts_whether_it_was_given_or_is_the_data_s(slices: SliceFolder, tmp_path: Path) -> None:
    run = options(slices, tmp_path)
    config = make_trainer(run).folder.config
    assert config["window"] == [-200.0, 300.0]
    given = replace(run, data=replace(run.data, window=(-200.0, 300.0)))
    assert make_trainer(given).folder.config == config


def test_an_interrupted_run_with_mixup_ends_as_an_uninterrupted_one(slices: SliceFolder, tmp_path: Path) -> None:
    def mixed(folder: str, alpha: float = 1.0, **training: Any) -> Trainer:
        run = options(slices, tmp_path / folder, **training)
        return make_trainer(replace(run, data=replace(run.data, mixup=alpha)))

    whole, alone, stopped = mixed("whole"), mixed("alone", 0.0), mixed("parts")
    whole.fit()
    alone.fit()
    stop_after(stopped, 3)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit()
    with pytest.raises(UserError, match=r"was trained with mixup = 1\.0, not 0\.5"):
        mixed("parts", 0.5, resume=True)
    resumed = mixed("parts", resume=True)
    resumed.fit()
    states = [trainer.task.state_dict() for trainer in (whole, resumed, alone)]
    assert equal_states(states[0], states[1]) and not equal_states(states[0], states[2])


def test_a_distilled_run_needs_its_teacher(slices: SliceFolder, tmp_path: Path) -> None:
    distillation = DistillationOptions(Path("teacher.ckpt"), methods=parse_methods(["kd"]))
    with pytest.raises(ValueError, match="needs its teacher"):
        make_trainer(replace(options(slices, tmp_path), distillation=distillation))


def test_methods_of_other_names_have_other_folders() -> None:
    data = DataOptions("kits", "tumor")
    specs = [MethodSpec("my.losses:Foo", 1.0, ()), MethodSpec("my.losses:Boo", 1.0, ())]
    names = {
        RunOptions("resnet_18", data, TrainingOptions(), DistillationOptions(Path("t"), methods=(spec,))).name
        for spec in specs
    }
    assert names == {"kits_tumor_kd_resnet_18_my.losses_Foo", "kits_tumor_kd_resnet_18_my.losses_Boo"}


def test_the_seed_alone_decides_the_first_weights(slices: SliceFolder, tmp_path: Path) -> None:
    """Whatever was drawn, and built, before."""
    first = make_trainer(options(slices, tmp_path)).segmenter.network.state_dict()
    torch.rand(7)
    again = make_trainer(options(slices, tmp_path)).segmenter.network.state_dict()
    assert equal_states(first, again)


def test_a_run_begins_with_its_teacher_s_weights_and_says_so(
    slices: SliceFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An undistilled one too, as in a benchmark."""
    teacher = new_teacher(slices, width=4)
    trainer = make_trainer(options(slices, tmp_path, init="teacher"), teacher)
    assert equal_states(trainer.segmenter.network.state_dict(), teacher.network.state_dict())
    train(trainer)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("init  ")]
    assert line.strip() == f"init  {trainer.folder.config['init']}"
    assert "100 % of small's parameters from weights " in line
    assert make_trainer(options(slices, tmp_path / "alone")).folder.config["init"] is None


@pytest.mark.parametrize(("size", "crop", "noted"), [(64, 96, True), (64, 0, False), (0, 96, False)])
def test_a_crop_that_pads_every_slice_is_noted(
    slices: SliceFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: int, crop: int, noted: bool
) -> None:
    run = options(slices, tmp_path)
    train(make_trainer(replace(run, data=replace(run.data, size=size, crop=crop))))
    assert ("note: --crop 96 is larger than --size 64" in capsys.readouterr().err) == noted


@pytest.mark.parametrize(("model", "noted"), [("sees_nothing", True), ("sees_all", False)])
def test_a_run_that_found_nothing_says_so(
    slices: SliceFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, noted: bool
) -> None:
    trainer = train(make_trainer(options(slices, tmp_path, model, lr=1e-6)))
    assert (trainer.progress.best == 0) == noted
    assert ("note: the best validation Dice is 0" in capsys.readouterr().err) == noted


def grey(classes: int, pretrained: bool) -> SmallNetwork:
    """A network that learns next to nothing at a small learning rate, and whose probabilities spread widely."""
    network = SmallNetwork(classes)
    with torch.no_grad():
        network.head.weight.mul_(20)
        network.head.bias.copy_(torch.tensor([0.0, -1.0]))
    return network


def test_the_best_network_decides_as_its_validation_cases_choose(
    slices: SliceFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is the same for a run that is killed between its last step and the decision, and resumed."""
    monkeypatch.setitem(NETWORKS, "grey", f"{__name__}:grey")
    whole, parts = (options(slices, tmp_path / name, "grey", lr=1e-5, amp="off") for name in ("whole", "parts"))
    trainer = train(make_trainer(whole))
    printed = capsys.readouterr().out

    best = torch.load(whole.folder / "best.ckpt", weights_only=True)
    (named,) = whole.folder.glob("checkpoint_*.ckpt")
    copy = torch.load(named, weights_only=True)
    (offset,) = best["offsets"]
    assert offset != 0 and copy["offsets"] == best["offsets"] and copy.keys() == best.keys()
    assert equal_states(copy["weights"], best["weights"])

    segmenter, _ = load_segmenter(whole.folder / "best.ckpt", torch.device("cpu"))
    rows = score_cases(segmenter, trainer.validation.labelled_cases("scoring"), distances=False).volumes
    dice, argmax_dice = (np.mean([row[metric] for row in rows]) for metric in ("dice", "argmax_dice"))
    assert dice > argmax_dice == best["metrics"]["dice"]
    threshold = f"{1 / (1 + math.exp(offset)):.2f}".rstrip("0")
    scores = f"(validation Dice {dice:.4f}, {argmax_dice:.4f} at 0.5)"
    assert f"\ndecision: foreground where its probability exceeds {threshold} {scores}\n" in printed

    make_trainer(parts).fit()
    assert torch.load(parts.folder / "best.ckpt", weights_only=True)["offsets"] == []
    train(make_trainer(replace(parts, training=replace(parts.training, resume=True))))
    assert torch.load(parts.folder / "best.ckpt", weights_only=True)["offsets"] == best["offsets"]
    assert torch.load(parts.folder / "last.ckpt", weights_only=True)["offsets"] == []


def test_a_job_that_always_asks_to_resume_starts_in_an_empty_folder_and_says_so(
    slices: SliceFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make_trainer(options(slices, tmp_path / "run", resume=True))
    assert "run holds nothing to resume, so training starts at its first step" in capsys.readouterr().err
    trainer.fit()
    again = make_trainer(options(slices, tmp_path / "run", resume=True))
    assert again.progress.step == 4 and "nothing to resume" not in capsys.readouterr().err


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["best.ckpt", "checkpoint_kits_tumor_small_3.ckpt"])
def test_another_run_s_network_is_not_overwritten(slices: SliceFolder, tmp_path: Path, name: str, resume: bool) -> None:
    """Whatever became of its last.ckpt."""
    (tmp_path / name).write_bytes(b"weeks of training")
    with pytest.raises(UserError, match=f"{name}: would be overwritten, and there is no last.ckpt"):
        make_trainer(options(slices, tmp_path, resume=resume))
    assert (tmp_path / name).read_bytes() == b"weeks of training"
    (tmp_path / name).rename(tmp_path / "checkpoint_kits_tumor_other_3.ckpt")
    make_trainer(options(slices, tmp_path, resume=resume))


def test_resuming_with_other_options_names_all_that_differ(slices: SliceFolder, tmp_path: Path) -> None:
    make_trainer(options(slices, tmp_path)).fit()
    with pytest.raises(
        UserError, match=r"with batch_size = 4, not 2; with lr = 0\.001, not 0\.1; with steps = 4, not 6"
    ):
        make_trainer(options(slices, tmp_path, resume=True, batch_size=2, lr=0.1, steps=6, val_every=2))


@pytest.mark.parametrize(("every", "steps"), [("1", [0, 1, 2, 3, 4]), ("3", [0, 2, 3, 4]), ("10min", [0, 2, 4])])
def test_last_ckpt_is_written_as_often_as_asked(
    slices: SliceFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: str, steps: list[int]
) -> None:
    """After validations, the second and the fourth step, in any case."""
    saved: list[int] = []
    monkeypatch.setattr(Trainer, "save_last", lambda trainer: saved.append(trainer.progress.step))
    make_trainer(options(slices, tmp_path, save_every=interval(every))).fit()
    assert saved == steps


def test_data_options_come_from_the_teacher_unless_given(slices: SliceFolder) -> None:
    teacher = Segmenter(SmallNetwork(2), "small", "lits", slices.label_map, Frame(96, 64), (-40.0, 160.0))
    decided = decide_data(DataOptions(), teacher)
    assert (decided.dataset, decided.task, decided.size, decided.crop) == ("lits", "tumor", 96, 64)
    assert decided.window == (-40.0, 160.0)
    larger = decide_data(DataOptions(size=192, window=(0.0, 100.0)), teacher)
    assert (larger.size, larger.crop, larger.window) == (192, None, (0.0, 100.0))
    uncropped = replace(teacher, frame=Frame(96, 0))
    assert decide_data(DataOptions(size=192), uncropped).crop == 0
    alone = decide_data(DataOptions())
    assert (alone.dataset, alone.task, alone.size, alone.crop) == ("kits", "tumor", 512, None)


@pytest.fixture(scope="module")
def terms(slices: SliceFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What a run records that nothing disturbs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "small", f"{__name__}:small")
        folder = tmp_path_factory.mktemp("terms")
        distil(slices, folder)
    assert [record["step"] for record in read_records(folder / "terms.jsonl")] == [0, 1, 2, 3]
    yield (folder / "terms.jsonl").read_text()


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
    distil(slices, tmp_path, resume=True)
    assert path.read_text() == terms


def test_a_new_run_does_not_continue_the_terms_of_an_old_one(slices: SliceFolder, tmp_path: Path, terms: str) -> None:
    (tmp_path / "terms.jsonl").write_text(terms)
    distil(slices, tmp_path)
    assert (tmp_path / "terms.jsonl").read_text() == terms


def test_a_run_is_not_resumed_on_slices_cut_again_under_the_same_names(tmp_path: Path) -> None:
    slices = SliceFolder.open(write_bare_archive(tmp_path / "slices"), "kits", "tumor")
    run = options(slices, tmp_path / "run")
    make_trainer(run).fit()
    resumed = replace(run, training=replace(run.training, resume=True))
    make_trainer(resumed)
    last = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    del last["config"]["slice contents"]  # as an earlier version wrote it
    torch.save(last, tmp_path / "run" / "last.ckpt")
    make_trainer(resumed).fit()
    make_trainer(resumed).save_last()
    with np.load(slices.folder / "00001_2.npz") as content:
        np.savez_compressed(slices.folder / "00001_2.npz", ct=content["ct"] + 1, mask=content["mask"])
    with pytest.raises(UserError, match="slice contents"):
        make_trainer(resumed)
