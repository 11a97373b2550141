"""Model folders of nnU-Net: what is read from them, and what is refused with one sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.labels import LabelMap, named_regions, one_class, organ_and_tumor
from engine.nnunet.folder import ModelFolder, class_channels, describe_classes, read_model_folder
from tests.nnunet import settings, tiny_network, write_model_folder
from utils.errors import UserError


def read(folder: Path, fold: str = "") -> ModelFolder:
    return read_model_folder(Path(f"nnunet:{folder}{fold}"))


def test_a_folder_gives_plan_labels_and_the_weights_once(tmp_path: Path) -> None:
    found = read(write_model_folder(tmp_path / "model"))
    assert found.labels == ("background", "kidney", "tumor")
    assert found.plan.patch == (32, 48) and found.plan.spacing == (0.9, 1.1) and found.plan.median == (40, 40)
    expected = tiny_network(settings()).state_dict()
    assert found.weights.keys() == expected.keys()
    assert all(torch.equal(found.weights[name], value) for name, value in expected.items())


class TestFold:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = write_model_folder(tmp_path / "model")
        content = (folder / "fold_0" / "checkpoint_final.pth").read_bytes()
        for name in ("fold_1/checkpoint_best.pth", "fold_all/checkpoint_final.pth", "fold_all/checkpoint_best.pth"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        (folder / "fold_2").mkdir()
        return folder

    @pytest.mark.parametrize(
        ("fold", "expected"),
        [
            (":0", "fold_0/checkpoint_final.pth"),
            (":1", "fold_1/checkpoint_best.pth"),
            (":all", "fold_all/checkpoint_final.pth"),
        ],
    )
    def test_the_last_weights_are_taken_or_else_the_best(self, folder: Path, fold: str, expected: str) -> None:
        assert read(folder, fold).checkpoint == folder / expected

    def test_one_of_several_has_to_be_named(self, folder: Path) -> None:
        with pytest.raises(UserError, match=r"has the folds 0, 1, all; name one, as nnunet:.*:0, or, .* all of them"):
            read(folder)

    def test_a_fold_that_was_not_trained_is_refused(self, folder: Path) -> None:
        with pytest.raises(UserError, match="has no trained fold 2, but 0, 1, all"):
            read(folder, ":2")

    def test_a_folder_without_any_is_refused(self, folder: Path) -> None:
        for path in folder.glob("*/*.pth"):
            path.unlink()
        with pytest.raises(UserError, match=r"has no fold_X with checkpoint_final\.pth or checkpoint_best\.pth"):
            read(folder)


def changed(**changes: Any) -> dict[str, Any]:
    """Plans with another 2D configuration."""
    content = settings()
    content["configurations"]["2d"] |= changes
    return content


ON_DISK = ".*nnUNetv2_predict --save_probabilities.*--teacher_probabilities$"


@pytest.mark.parametrize(
    ("plans", "changes", "message"),
    [
        (changed(patch_size=[8, 32, 32]), {}, "its configuration 2d is of 3 dimensions, which is not known here"),
        (changed(previous_stage="3d_lowres"), {}, "its configuration 2d is the second stage of a cascade"),
        (changed(normalization_schemes=["ZScoreNormalization"]), {}, "its normalisation is ZScoreNormalization"),
        (changed(normalization_schemes=["CTNormalization"] * 2), {}, "its normalisation is CTNormalizationCTNorm"),
        (changed(preprocessor_name="MyPreprocessor"), {}, "its preprocessor is MyPreprocessor"),
        (changed(resampling_fn_data="resample_torch_fornnunet"), {}, "its resampling is resample_torch_fornnunet"),
        ({**settings(), "image_reader_writer": "Tiff3DIO"}, {}, "its images are read by Tiff3DIO"),
        (changed(architecture={"network_class_name": "a.UNet"}), {}, "its network is a.UNet, which is not known here"),
        (None, {"trainer_name": "nnUNetTrainerUMambaBot"}, "its trainer is nnUNetTrainerUMambaBot, which is not"),
        (None, {"trainer_name": "nnUNetTrainerBN"}, "its trainer is nnUNetTrainerBN"),
        (None, {"regions_class_order": [1, 2]}, "its labels are regions"),
        (None, {"labels": {"background": 0, "kidney": [1, 2], "tumor": 2}}, "its labels are regions"),
        (None, {"channel_names": {"0": "CT", "1": "PET"}}, "its network takes 2 images of a case"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused_and_points_to_answers_on_disk(
    plans: dict[str, Any] | None, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = write_model_folder(tmp_path / "model", **changes)
    if plans is not None:
        (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(UserError, match=message + ON_DISK) as error:
        read(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "trainer",
    ["nnUNetTrainer", "nnUNetTrainer_1epoch", "nnUNetTrainer_4000epochs_NoMirroring", "nnUNetTrainerDA5",
     "nnUNetTrainer_onlyMirror01", "nnUNetTrainerNoDeepSupervision"],
)  # fmt: skip
def test_trainers_of_nnunet_that_train_the_planned_network_are_known(trainer: str, tmp_path: Path) -> None:
    assert read(write_model_folder(tmp_path / "model", trainer_name=trainer)).plan.patch == (32, 48)


@pytest.mark.parametrize(
    "changes",
    [
        {"patch_size": [32, 50]},
        {"patch_size": [0, 48]},
        {"patch_size": [8_000_000, 48]},
        {"spacing": [1e-9, 1.0]},
        {"spacing": [float("nan"), 1.0]},
        {"resampling_fn_data_kwargs": {"order": 9}},
    ],
)
def test_numbers_that_no_plan_has_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"plans\.json: is not of a form that is known here \(ValueError"):
        read(write_model_folder(tmp_path / "model", changed(**changes)))


def test_intensities_have_to_be_numbers(tmp_path: Path) -> None:
    content = settings()
    content["foreground_intensity_properties_per_channel"]["0"]["mean"] = float("nan")
    with pytest.raises(UserError, match="its intensities are none"):
        read(write_model_folder(tmp_path / "model", content))


def test_a_configuration_has_what_it_inherits(tmp_path: Path) -> None:
    content = settings()
    content["configurations"]["small"] = {"inherits_from": "2d", "patch_size": [16, 16]}
    content["configurations"]["endless"] = {"inherits_from": "endless"}
    changes: dict[str, Any] = {"init_args": {"configuration": "small"}}
    plan = read(write_model_folder(tmp_path / "model", content, **changes)).plan
    assert plan.patch == (16, 16) and plan.spacing == (0.9, 1.1)
    with pytest.raises(UserError, match=r"plans\.json: is not of a form that is known here \(ValueError: .*endless"):
        read(write_model_folder(tmp_path / "b", content, init_args={"configuration": "endless"}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "plans.json").unlink(), r"is no model folder of nnU-Net, for it has no plans\.json"),
        (lambda folder: (folder / "dataset.json").write_text("{}"), r"dataset\.json: does not name labels 0, 1, 2"),
        (lambda folder: (folder / "plans.json").write_text("[]"), r"plans\.json: is not of a form that is known here"),
        (lambda folder: (folder / "plans.json").write_text("{"), r"plans\.json"),
        (lambda folder: torch.save({"a": 1}, folder / "fold_0/checkpoint_final.pth"), "not a checkpoint of nnU-Net 2"),
        (lambda folder: torch.save([1], folder / "fold_0/checkpoint_final.pth"), "not a checkpoint of nnU-Net 2"),
        (lambda folder: (folder / "fold_0/checkpoint_final.pth").write_bytes(b"PK"), "is not a checkpoint that can be"),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_refused(damage: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model")
    damage(folder)
    with pytest.raises(UserError, match=message) as error:
        read(folder)
    assert "\n" not in str(error.value)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_model_folder(tmp_path / "model", _best_ema=Hostile())
    with pytest.raises(UserError, match=r"it holds Python objects \((os|posix)\.system\), which are never loaded"):
        read(folder)
    assert not (tmp_path / "executed").exists()


@pytest.fixture(scope="module")
def kits_folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return read(write_model_folder(tmp_path_factory.mktemp("classes") / "model"))


class TestClasses:
    @pytest.mark.parametrize(
        ("task", "expected"), {"tumor": ((0, 1), (2,)), "organ": ((0,), (1, 2)), "all": ((0,), (1,), (2,))}.items()
    )
    def test_a_tasks_classes_are_sums_of_labels(
        self, kits_folder: ModelFolder, task: str, expected: tuple[tuple[int, ...], ...]
    ) -> None:
        assert class_channels(kits_folder, organ_and_tumor()[task]) == expected

    def test_the_user_reads_what_is_what(self, kits_folder: ModelFolder) -> None:
        task = organ_and_tumor()["tumor"]
        text = describe_classes(kits_folder, task, class_channels(kits_folder, task))
        assert text.endswith("of its labels, background is 0 (background) and 1 (kidney), tumor is 2 (tumor)")

    @pytest.mark.parametrize(
        ("label_map", "message"),
        [
            (
                one_class("cyst", 3),
                r"has no label 3, of which task cyst makes cyst, but 0 \(background\), 1",
            ),
            (
                named_regions({"tumor": (1,), "kidney": (2,)}, "here")[0]["all"],
                "calls label 2 tumor, which is 1 in",
            ),
        ],
    )
    def test_other_labels_are_refused(self, kits_folder: ModelFolder, label_map: LabelMap, message: str) -> None:
        with pytest.raises(UserError, match=message):
            class_channels(kits_folder, label_map)
