"""A model folder as nnU-Net leaves it, with a tiny network whose weights come from a closed formula."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from networks.nnunet import NNUNet
from networks.nnunet_plan import read_architecture
from tests.networks.nnunet_reference import CLASSES, fill

SETTINGS = Path(__file__).parent / "networks" / "nnunet_plans.json"


def settings() -> dict[str, Any]:
    """The plans of nnU-Net for data that are stored as KiTS is: its slices are the last axis that it reads."""
    content: dict[str, Any] = json.loads(SETTINGS.read_text())
    return content


def tiny_network(plans: dict[str, Any]) -> NNUNet:
    network = NNUNet(read_architecture(plans["configurations"]["2d"]), CLASSES)
    fill(network)
    return network.eval()


def write_model_folder(folder: Path, plans: dict[str, Any] | None = None, **changes: Any) -> Path:
    """plans.json, dataset.json and fold_0/checkpoint_final.pth; changes: of what a checkpoint or dataset.json says."""
    plans = plans or settings()
    weights = tiny_network(plans).state_dict()
    listed = {
        name.replace(f".{layer}.", f".all_modules.{place}."): value
        for name, value in weights.items()
        for place, layer in enumerate(("conv", "norm"))
        if f".{layer}." in name
    }
    weights = {**weights, **listed}
    twice = {f"decoder.{name}": value for name, value in weights.items() if name.startswith("encoder.")}
    checkpoint = {
        "network_weights": {**weights, **twice},
        "logging": {"ema_fg_dice": [np.float32(0.5)], "lrs": [0.01]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 5,
        "init_args": {"configuration": "2d", "fold": 0, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer_5epochs",
    }
    dataset = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "kidney": 1, "tumor": 2}}
    for name, value in changes.items():
        (dataset if name in (*dataset, "regions_class_order") else checkpoint)[name] = value
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return folder
