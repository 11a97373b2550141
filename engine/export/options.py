"""The command line of scripts/export.py. Nothing heavy is imported, for `--help` should answer at once."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Literal

from utils.errors import UserError
from utils.numbers import PositiveInt
from utils.options import option

Format = Literal["onnx", "torch", "safetensors"]
ALIASES = {"data_path": "train_data_path", "out": "outpath", "license": "licence"}


@dataclass(frozen=True)
class ExportOptions:
    """export: which network, and to what"""

    ckpt: Path = option(MISSING, "a checkpoint of train.py or train_kd.py")
    outpath: Path = option(MISSING, "folder to write to")
    formats: tuple[Format, ...] = option(
        ("onnx", "torch", "safetensors"), "model.onnx; model.pt2; model.safetensors with model_card.md"
    )
    decision: Literal["chosen", "argmax"] = option(
        "chosen", "chosen: fold what the validation cases chose into the last bias; argmax: leave it out"
    )
    results: Path | None = option(None, "the JSON file of scripts/evaluate.py whose scores the model card shows")
    licence: str | None = option(None, "of the weights, for the model card", metavar="TEXT")

    def __post_init__(self) -> None:
        if (self.results or self.licence) and "safetensors" not in self.formats:
            raise UserError("--results and --licence are for the model card; add safetensors to --formats")


@dataclass(frozen=True)
class Int8Options:
    """int8: model_int8.onnx too, kept if it is faster and costs less than 0.5 Dice points"""

    int8: bool = option(False, "quantise the ONNX file")
    train_data_path: Path | None = option(
        None,
        "slices with the training and validation cases (default: data/<dataset> in the repository, or train in it)",
    )
    calibration: PositiveInt = option(64, "training slices that the ranges are measured on")
    vnni: bool = option(False, "use all 8 bits of weights, for processors with VNNI alone; on others sums overflow")
