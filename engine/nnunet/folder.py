"""A model folder of nnU-Net: plans.json, dataset.json and fold_X/checkpoint_final.pth, read without running code.

Layout and names are those of nnU-Net 2 (github.com/MIC-DKFZ/nnUNet), F. Isensee et al., Nature Methods 18, 2021.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from datasets.labels import LabelMap, plain_name
from engine.nnunet.plan import Plan, read_plan
from engine.options import NNUNET
from networks.nnunet import own_weights
from utils.checkpoint import NUMPY_NUMBERS, find_weights, read_tensors, shorten
from utils.errors import UserError
from utils.files import read_json

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
INSTEAD = (
    "let nnU-Net write its answers with nnUNetv2_predict --save_probabilities, and give them as --teacher_probabilities"
)
SHIPPED = (
    *("NoDA", "DA5", "DA5ord0", "DA5Segord0", "DA5_10epochs", "_DASegOrd0", "_DASegOrd0_NoMirroring", "_noDummy2DDA"),
    *("NoMirroring", "_onlyMirror01", "_onlyMirror01_DA5", "_onlyMirror01_DASegOrd0", "_onlyMirror01_1500ep"),
    *("DiceLoss", "DiceCELoss_noSmooth", "DiceTopK10Loss", "CELoss", "CELoss_5epochs", "Topk10Loss", "Topk10LossLS01"),
    *("Adam", "Adam1en3", "Adam3en4", "VanillaAdam", "VanillaAdam1en3", "VanillaAdam3en4"),
    *("Adan", "Adan1en3", "Adan3en4", "Adan1en1", "AdanCosAnneal", "CosAnneal", "_warmup", "NoDeepSupervision"),
    *("_probabilisticOversampling", "_probabilisticOversampling_033", "_probabilisticOversampling_010"),
)
"""Trainers that nnU-Net 2.8 has, after nnUNetTrainer, and that train the network of the plans."""
TRAINER = re.compile(rf"nnUNetTrainer({'|'.join(SHIPPED)}|_\d+epochs?(_NoMirroring)?)?")


@dataclass(frozen=True)
class ModelFolder:
    """labels: the name of each of the network's classes, the background first."""

    checkpoint: Path
    plan: Plan
    labels: tuple[str, ...]
    weights: dict[str, Tensor]


def read_model_folder(name: Path) -> ModelFolder:
    """What nnunet:FOLDER[:fold] names; UserError if it is no such folder, or one of a kind that is not known here."""
    folder, fold = _split(name)
    for file in ("plans.json", "dataset.json"):
        if not (folder / file).is_file():
            raise UserError(
                f"{folder}: is no model folder of nnU-Net, for it has no {file}; give the one that nnU-Net names "
                "TRAINER__PLANS__CONFIGURATION"
            )
    checkpoint = _checkpoint(folder, fold)
    content = read_tensors(checkpoint, NUMPY_NUMBERS)
    try:
        trainer, configuration = content["trainer_name"], content["init_args"]["configuration"]
        weights = find_weights(content)
        if weights is None or not isinstance(trainer, str):
            raise ValueError("it holds no network")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise UserError(f"{checkpoint}: is not a checkpoint of nnU-Net 2; give a folder that it trained") from None
    if not TRAINER.fullmatch(trainer):
        raise UserError(f"{checkpoint}: its trainer is {trainer[:80]}, which is not known here; {INSTEAD}")
    dataset = read_json(folder / "dataset.json")
    plans = folder / "plans.json"
    try:
        plan = read_plan(read_json(plans), configuration)
    except UserError as error:
        raise UserError(f"{plans}: {error}, which is not known here; {INSTEAD}") from None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        reason = shorten([f"{type(error).__name__}: {error}"])
        raise UserError(f"{plans}: is not of a form that is known here ({reason}); {INSTEAD}") from None
    return ModelFolder(checkpoint, plan, _labels(folder / "dataset.json", dataset), own_weights(weights))


def class_channels(folder: ModelFolder, label_map: LabelMap) -> tuple[tuple[int, ...], ...]:
    """Of each class of a task, the background first, the network's classes that make it up, by their numbers.

    UserError if the network has no such label, or calls another label by the class's name.
    """
    where = folder.checkpoint.parent.parent / "dataset.json"
    numbers = {plain_name(name): number for number, name in enumerate(folder.labels)}
    for name, labels in zip(label_map.classes, label_map.labels, strict=True):
        if unknown := [label for label in labels if label >= len(folder.labels)]:
            raise UserError(
                f"{where}: has no label {unknown[0]}, of which task {label_map.name} makes {name}, but "
                f"{_listed(folder.labels)}; give a teacher of this data set, or another --task"
            )
        if (other := numbers.get(plain_name(name))) is not None and other not in labels:
            raise UserError(
                f"{where}: calls label {other} {name}, which is {labels[0]} in the slices; give a teacher of this data "
                "set, or cut the slices with its labels"
            )
    foreground = [label for labels in label_map.labels for label in labels]
    background = tuple(number for number in range(len(folder.labels)) if number not in foreground)
    return background, *label_map.labels


def describe_classes(folder: ModelFolder, label_map: LabelMap, channels: tuple[tuple[int, ...], ...]) -> str:
    """Which of the network's labels are which class, for the user to check."""
    names = ("background", *label_map.classes)
    parts = (
        f"{name} is {' and '.join(f'{number} ({folder.labels[number]})' for number in numbers) or 'nothing'}"
        for name, numbers in zip(names, channels, strict=True)
    )
    return f"{folder.checkpoint}: of its labels, {', '.join(parts)}"


def _split(name: Path) -> tuple[Path, str | None]:
    """The folder, and the fold if one is named."""
    text = str(name).removeprefix(NNUNET)
    folder, _, fold = text.rpartition(":")
    if folder and re.fullmatch(r"all|\d+", fold):
        return Path(folder), fold
    return Path(text), None


def _checkpoint(folder: Path, fold: str | None) -> Path:
    """The last weights of a fold, or its best ones where training was not finished."""
    there = {path.name.removeprefix("fold_"): path for path in sorted(folder.glob("fold_*")) if _in_fold(path)}
    if not there:
        raise UserError(f"{folder}: has no fold_X with {' or '.join(CHECKPOINTS)}; train one, or give another folder")
    if fold is None and len(there) > 1:
        raise UserError(
            f"{folder}: has the folds {', '.join(there)}; name one, as {NNUNET}{folder}:{next(iter(there))}, or, to "
            f"learn from all of them, {INSTEAD}"
        )
    if fold is not None and fold not in there:
        raise UserError(f"{folder}: has no trained fold {fold}, but {', '.join(there)}; name one of these")
    found = _in_fold(there[fold] if fold is not None else next(iter(there.values())))
    return found[0]


def _in_fold(path: Path) -> list[Path]:
    return [path / name for name in CHECKPOINTS if (path / name).is_file()]


def _labels(path: Path, content: Any) -> tuple[str, ...]:
    """The names of the labels 0, 1, 2, ...; UserError for regions, or for images of several channels."""
    try:
        labels: Mapping[str, Any] = content["labels"]
        images = content.get("channel_names") or content["modality"]
        numbers = {name: number for name, number in labels.items() if name != "ignore"}
        regions = bool(content.get("regions_class_order")) or any(isinstance(n, list) for n in numbers.values())
        if not regions:
            names = {int(number): str(name) for name, number in numbers.items()}
            ordered = tuple(names[number] for number in range(len(numbers)))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{path}: does not name labels 0, 1, 2, ... and images; give the file of nnU-Net") from None
    if regions:
        raise UserError(f"{path}: its labels are regions, which are no classes of a network here; {INSTEAD}")
    if len(images) != 1:
        raise UserError(f"{path}: its network takes {len(images)} images of a case, and slices hold one; {INSTEAD}")
    return ordered


def _listed(labels: tuple[str, ...]) -> str:
    return ", ".join(f"{number} ({name})" for number, name in enumerate(labels))
