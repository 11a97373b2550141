"""`--init`: where a run's first weights come from, and what its settings say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from datasets.frame import Frame
from datasets.labels import LabelMap, one_class
from engine.saved_segmenter import load_segmenter
from engine.segmenter import Segmenter
from engine.training.initial_weights import build_initialised
from networks import build
from utils.checkpoint import save_checkpoint
from utils.errors import UserError

NAME = "resnet_18"


def initialised(init: str | None, teacher: Segmenter | None = None, model: str = NAME) -> tuple[Any, str | None, float]:
    """The weights, what is said of them, and what a method's first weights would be."""
    torch.manual_seed(1)
    network, said = build_initialised(model, 2, init, teacher.network if teacher else None)
    return network.state_dict(), said, float(torch.rand(1))


@pytest.fixture(scope="module")
def teacher() -> Segmenter:
    torch.manual_seed(0)
    label_map = LabelMap.from_dict(one_class("organ", 1).to_dict())
    return Segmenter(build("raunet", 2), "raunet", "lits", label_map, Frame(96, 0), (-40.0, 160.0))


@pytest.fixture(scope="module")
def checkpoint(teacher: Segmenter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("init") / "best.ckpt"
    save_checkpoint(path, {**teacher.description(), "weights": teacher.network.state_dict()})
    return path


@pytest.fixture
def imagenet_file(tmp_path: Path) -> Path:
    """Weights as torchvision publishes them, but random."""
    path = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    return path


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
    return {name for name in one if torch.equal(one[name], other[name])}


def test_the_teacher_and_its_checkpoint_are_one_source(teacher: Segmenter, checkpoint: Path) -> None:
    fresh, nothing, drawn = initialised(None)
    state, said, drawn_with_teacher = initialised("teacher", teacher)
    assert nothing is None and said is not None
    assert said.startswith("99 % of resnet_18's parameters from weights ")
    assert (said, drawn) == initialised(str(checkpoint))[1:]
    assert drawn == drawn_with_teacher
    weights = teacher.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in state.items() if name.startswith("encoder."))
    assert {"head.weight", "head.bias"} <= same(state, fresh)


def test_a_file_of_an_encoder(imagenet_file: Path, tmp_path: Path) -> None:
    fresh, _, drawn = initialised(None)
    state, said, drawn_with_file = initialised(str(imagenet_file))
    assert said is not None and said.startswith("99 % of resnet_18's parameters from weights ")
    assert drawn == drawn_with_file and torch.equal(state["head.weight"], fresh["head.weight"])
    assert not torch.equal(state["encoder.layer4.1.conv2.weight"], fresh["encoder.layer4.1.conv2.weight"])
    moved = imagenet_file.rename(tmp_path / "moved.pth")
    assert initialised(str(moved))[1] == said


def test_imagenet_weights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("networks.pretrained._download", lambda _: dict(torchvision.models.resnet18().state_dict()))
    assert initialised("imagenet")[1] == "99 % of resnet_18's parameters from imagenet"


@pytest.mark.parametrize(
    ("init", "model", "message"),
    [
        ("teacher", "resnet_18", "--init teacher: there is none without distillation"),
        ("nowhere.pth", "resnet_18", r"nowhere\.pth: no such file"),
        ("imagenet", "malunet", "malunet has no ImageNet weights"),
    ],
)
def test_weights_that_cannot_be_had(init: str, model: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        initialised(init, model=model)


def test_a_checkpoint_of_which_nothing_fits(checkpoint: Path) -> None:
    with pytest.raises(UserError, match=r"--init .*best\.ckpt: no block of it fits malunet"):
        initialised(str(checkpoint), model="malunet")


@pytest.mark.parametrize("offset", [1e6, float("nan")])
def test_a_decision_that_no_validation_chooses_is_refused(teacher: Segmenter, tmp_path: Path, offset: float) -> None:
    content = {**teacher.description(), "offsets": [offset], "weights": teacher.network.state_dict()}
    save_checkpoint(tmp_path / "best.ckpt", {**content, "config": {}, "cases": {"train": [], "val": []}})
    with pytest.raises(UserError, match=r"best\.ckpt: is not a checkpoint of this project .*offsets"):
        load_segmenter(tmp_path / "best.ckpt", torch.device("cpu"))


def test_an_export_is_not_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.touch()
    with pytest.raises(UserError, match=r"model\.safetensors: was exported, .* give the checkpoint that"):
        initialised(str(path), model="resnet_18")
