"""Flags by their earlier names, which no help shows any more."""

from __future__ import annotations

from importlib import import_module

import pytest

from tests.paths import SCRIPTS
from utils.options import Parser


@pytest.mark.parametrize(
    ("script", "classes", "earlier", "today"),
    [
        (
            "evaluate",
            ["EvaluationOptions", "PredictionOptions"],
            "--ckpt best.ckpt --data-path slices --out=results.json",
            "--ckpt best.ckpt --test_data_path slices --outpath results.json",
        ),
        (
            "predict",
            ["OutputOptions", "PredictionOptions"],
            "--ckpt best.ckpt --input case.nii.gz --output folder",
            "--ckpt best.ckpt --inpath case.nii.gz --outpath folder",
        ),
        ("count_ops", ["CountOptions"], "--models raunet resnet_18", "--model raunet resnet_18"),
        ("engine.options", ["TrainingOptions"], "--lr 1e-4 --pretrained", "--lr 1e-4 --init imagenet"),
        ("engine.options", ["TrainingOptions"], "--pretrained=resnet18.pth", "--init resnet18.pth"),
        ("plot_terms", ["PlotOptions"], "--run run --outpath a.png", "--checkpoint_path run --outpath a.png"),
    ],
)
def test_an_earlier_name_of_a_flag_means_the_same(
    script: str, classes: list[str], earlier: str, today: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    module = import_module(script)
    groups = [getattr(module, name) for name in classes]
    parser = Parser(None, module.ALIASES)
    assert parser.read(*groups, words=earlier.split()) == Parser(None).read(*groups, words=today.split())
    assert not any(f"--{name}" in parser.format_help().split() for name in module.ALIASES)
