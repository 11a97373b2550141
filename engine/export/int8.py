"""An ONNX file in 8-bit integers: quantised in each way that works, the better one on validation cases kept.

Activations are unsigned and weights signed, for the multiply-add instruction of x86 processors without VNNI takes one
of each; ONNX Runtime's default of two signed ones is not faster than float32 there. That instruction sums pairs in 16
bits, which 8-bit weights overflow: they have 7 bits (`reduce_range`) but with `--vnni`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import chdir
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from datasets.labelled_cases import cases_in_slices
from datasets.slices.slice_folder import SliceFolder, case_of
from datasets.window import window_image
from engine.cost import blank, measure_in_turns, network_cost
from engine.evaluation.score import score_cases
from engine.evaluation.summaries import mean_dice
from engine.export.onnx_file import quiet, save_onnx
from engine.runtime.network import INPUT
from engine.saved_segmenter import load_exported
from engine.segmenter import Segmenter
from utils.errors import UserError
from utils.progress import progress

METHODS = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}
LARGEST_COST = 0.005  # of Dice
REPEATS = 15


@dataclass(frozen=True)
class Quantised:
    """method: the calibration; dice, dice_fp32: of validation cases; speedup: float32's time over int8's."""

    method: str
    dice: float
    dice_fp32: float
    speedup: float

    @property
    def worth_keeping(self) -> bool:
        return self.speedup > 1 and self.dice_fp32 - self.dice < LARGEST_COST

    def __str__(self) -> str:
        return (
            f"int8 ({self.method}): x {self.speedup:.2f} the speed, validation Dice {self.dice:.4f}, "
            f"{100 * (self.dice - self.dice_fp32):+.2f} points"
        )


class TrainingSlices(CalibrationDataReader):  # type: ignore[misc]
    """Training slices as the network sees them, evenly spread over the list, one at a time.

    ONNX Runtime keeps every activation of a range of them: `set_range` makes it one.
    """

    def __init__(self, segmenter: Segmenter, slices: SliceFolder, cases: list[str], count: int) -> None:
        names = [name for name in slices.train if case_of(name)[0] in set(cases)]
        if not names:
            raise UserError(f"{slices.folder}: has no slices of the cases that trained the network; give their folder")
        chosen = np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int)
        self.segmenter, self.slices = segmenter, slices
        self.names = [names[index] for index in dict.fromkeys(chosen)]
        self.set_range(0, len(self.names))

    def __len__(self) -> int:
        return len(self.names)

    def set_range(self, start_index: int, end_index: int) -> None:
        self.rest = iter(self.names[start_index:end_index])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        name = next(self.rest, None)
        if name is None:
            return None
        window = self.slices.window(case_of(name)[0], self.segmenter.window)
        values = torch.from_numpy(window_image(self.slices.read_ct(name)[None], *window))
        return {INPUT: self.segmenter.frame.image(values)[:, None].numpy()}


def quantise(
    path: Path,
    content: Mapping[str, Any],
    cases: Mapping[str, list[str]],
    slices: SliceFolder,
    output: Path,
    calibration: int,
    vnni: bool,
) -> Quantised:
    """Write the better int8 form of an ONNX file to `output`; the caller decides whether it stays.

    content: the file's metadata; cases: names of the training and validation cases; slices: a folder that has them.
    """
    segmenter, _ = load_exported(path, "onnxruntime")
    reader = TrainingSlices(segmenter, slices, cases["train"], calibration)
    prepared = prepare(path, output.with_name("prepared.onnx"))
    fp32 = validation_dice(segmenter, slices, cases["val"])
    best: tuple[float, str, onnx.ModelProto] | None = None
    for method in progress(METHODS, "quantising"):
        reader.set_range(0, len(reader))
        quantise_once(prepared, output, reader, METHODS[method], vnni)
        model = onnx.load(output, load_external_data=False)
        save_onnx(model, {**content, "quantised": {"method": method, "slices": len(reader), "vnni": vnni}}, output)
        dice = validation_dice(load_exported(output, "onnxruntime")[0], slices, cases["val"])
        if best is None or dice > best[0]:
            best = dice, method, model
    prepared.unlink(missing_ok=True)
    assert best is not None
    dice, method, model = best
    output.write_bytes(model.SerializeToString())
    return Quantised(method, dice, fp32, speedup(segmenter, load_exported(output, "onnxruntime")[0]))


def prepare(path: Path, prepared: Path) -> Path:
    """The model with its operations fused and its shapes inferred; as it is, where ONNX Runtime fails at that."""
    path, prepared = path.absolute(), prepared.absolute()
    for settings in ({}, {"skip_symbolic_shape": True}, {"skip_symbolic_shape": True, "skip_onnx_shape": True}):
        try:
            # Where it fails, it leaves what it had in the working folder.
            with quiet(), TemporaryDirectory() as folder, chdir(folder):
                quant_pre_process(str(path), str(prepared), **settings)
            return prepared
        except Exception:  # It ends in errors of many classes, as for malunet.
            prepared.unlink(missing_ok=True)
    return path


def quantise_once(path: Path, output: Path, reader: TrainingSlices, method: CalibrationMethod, vnni: bool) -> None:
    """One static quantisation, by channel, with quantise and dequantise nodes."""
    # The ranges of activations need not be symmetric: after a ReLU that would waste half of them.
    options = {"CalibStridedMinMax": 1, "CalibTensorRangeSymmetric": False}
    with quiet():
        quantize_static(
            str(path),
            str(output),
            reader,
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=not vnni,
            calibrate_method=method,
            calibration_providers=["CPUExecutionProvider"],
            extra_options=options,
        )


def validation_dice(segmenter: Segmenter, slices: SliceFolder, cases: list[str]) -> float:
    """The mean per-case Dice of the cases, decided as the file decides."""
    if not cases:
        raise UserError(f"{slices.folder}: the checkpoint names no validation cases, on which int8 is judged")
    labelled = cases_in_slices(slices, cases, segmenter.window)
    return mean_dice(score_cases(segmenter, labelled, distances=False, calibration=False).volumes)


def speedup(segmenter: Segmenter, other: Segmenter) -> float:
    """How many times as fast the other's network is for one slice in the frame, measured in turns."""
    image = blank(segmenter.network, network_cost(segmenter)["gmacs_at"])
    steps = {"own": partial(segmenter.network, image), "other": partial(other.network, image)}
    costs = measure_in_turns(steps, REPEATS, untimed=3)
    return costs["own"].median / costs["other"].median
