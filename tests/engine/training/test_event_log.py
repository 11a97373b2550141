"""What TensorBoard shows of a training, read back with TensorBoard's own reader."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from datasets.slices.slice_folder import SliceFolder
from engine.contours import PREDICTION_COLOUR, TRUTH_COLOUR
from engine.evaluation.decision import Decision
from engine.training.run import log_result
from engine.training.schedule import Schedule
from tests.small import equal_states, write_bare_archive
from tests.training import small_trainer


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> SliceFolder:
    return SliceFolder.open(write_bare_archive(tmp_path_factory.mktemp("slices")), "kits", "tumor")


def read_events(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


@pytest.fixture(scope="module")
def finished(slices: SliceFolder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EventAccumulator]:
    """A distillation of eight steps with a validation after each fourth, and its result."""
    folder = tmp_path_factory.mktemp("run")
    config = {"lr": 1e-2, "window": [-200.0, 300.0], "kd": [{"name": "hlfd"}], "init": None, "resume": False}
    trainer = small_trainer(slices, folder, "hlfd", Schedule(8, 4, 1e-2), config)
    trainer.fit()
    log_result(trainer, Decision((0.5,), 0.75, 0.7))
    return folder, read_events(folder / "log")


def scalars(events: EventAccumulator, tag: str) -> dict[int, float]:
    return {event.step: event.value for event in events.Scalars(tag)}


def test_every_term_has_a_curve_of_training_and_one_of_validation(finished: tuple[Path, EventAccumulator]) -> None:
    folder, events = finished
    history = json.loads((folder / "history.json").read_text())
    terms = history[0]["train"].keys()
    assert len(terms) > 5
    for term in terms:
        expected = {entry["step"]: entry["train"][term] for entry in history}
        assert scalars(events, f"train_loss/{term}") == pytest.approx(expected, rel=1e-5)
        assert scalars(events, f"validation_loss/{term}").keys() == {4, 8}
    for step in (4, 8):
        total = sum(scalars(events, f"validation_loss/{term}")[step] for term in terms if term != "loss")
        assert scalars(events, "validation_loss/loss")[step] == pytest.approx(total, rel=1e-4)


def test_pictures_are_of_the_same_slices_at_every_validation(finished: tuple[Path, EventAccumulator]) -> None:
    _, events = finished
    first, second = events.Images("validation/contours")
    assert (first.step, second.step) == (4, 8)
    pictures = [np.asarray(Image.open(io.BytesIO(each.encoded_image_string))) for each in (first, second)]
    plain, drawn = np.split(pictures[0], 2, axis=1)
    np.testing.assert_array_equal(plain, np.split(pictures[1], 2, axis=1)[0])
    assert np.ptp(plain, axis=2).max() == 0, "the CT alone is grey"
    assert (drawn == TRUTH_COLOUR).all(axis=2).any() or (drawn == PREDICTION_COLOUR).all(axis=2).any()


def test_settings_stand_beside_the_scores_once_and_in_the_same_run(finished: tuple[Path, EventAccumulator]) -> None:
    folder, events = finished
    assert [path for path in (folder / "log").rglob("*") if path.is_dir()] == []
    plugin: dict[str, Any] = events.SummaryMetadata("_hparams_/session_start_info").plugin_data
    shown = HParamsPluginData.FromString(plugin.content).session_start_info.hparams
    assert shown["lr"].number_value == 1e-2 and shown["resume"].bool_value is False
    assert (shown["window"].string_value, shown["init"].string_value) == ("[-200.0, 300.0]", "null")
    assert shown["kd"].string_value == '[{"name": "hlfd"}]'
    assert scalars(events, "best/dice") == {8: 0.75} and scalars(events, "best/argmax_dice") == pytest.approx({8: 0.7})
    assert "best/tumor/dice" in events.Tags()["scalars"]


@pytest.mark.parametrize("kd", [None, "cirkd", "skd_holistic", "mgd"])
def test_the_loss_on_validation_slices_leaves_the_task_as_it_is(
    slices: SliceFolder, tmp_path: Path, kd: str | None
) -> None:
    trainer = small_trainer(slices, tmp_path, kd, Schedule(4, 4, 1e-2))
    before = copy.deepcopy(dict(trainer.task.state_dict()))
    random = torch.get_rng_state()
    terms = trainer.validation_loss()
    assert terms["loss"] == pytest.approx(sum(value for term, value in terms.items() if term != "loss"), rel=1e-4)
    assert equal_states(before, trainer.task.state_dict()) and torch.equal(random, torch.get_rng_state())
    assert trainer.validation_loss() == terms
    assert all(parameter.grad is None for parameter in trainer.task.parameters())
