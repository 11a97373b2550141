"""Exported networks in the place of PyTorch's: called with a batch of images, they give its logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.runtime.metadata import ADVICE
from networks.contract import SegmentationNetwork
from utils.checkpoint import shorten
from utils.errors import UserError

INPUT, OUTPUT = "image", "logits"
TRIAL = 64  # pixels a side of the image that shows whether a file runs
RUNTIMES = ("onnxruntime", "openvino")


class ExportedNetwork(SegmentationNetwork):
    """A network of an ONNX file, on the CPU, with as many threads as PyTorch. It has logits and no features.

    cost: parameters and GMACs, which the file states. folded: offsets of the foreground classes in the file's last
    bias. They are taken off the logits here and belong to the segmenter, so that probabilities, thresholds and
    `--decision` mean what they mean for a checkpoint.
    """

    def __init__(self, path: Path, classes: int, cost: Mapping[str, Any], folded: Sequence[float]) -> None:
        super().__init__(classes)
        self.path, self.cost = path, dict(cost)
        self.shift = torch.tensor([0.0, *folded])[:, None, None] if any(folded) else None
        # Where images go is asked of a network's parameters.
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)

    def run(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the file computes: logits [B, C, H, W] of an image [B, 1, H, W]."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Tensor:
        try:
            logits = torch.from_numpy(self.run(image.numpy()))
        except (RuntimeError, ValueError, TypeError) as error:
            raise UserError(f"{self.path}: cannot be run ({shorten([error])}); {ADVICE}") from None
        if logits.shape != (len(image), self.classes, *image.shape[2:]):
            raise UserError(f"{self.path}: gives no logits of {self.classes} classes for an image; {ADVICE}")
        return logits if self.shift is None else logits.sub_(self.shift)

    def refuse_others(self, side: int) -> None:
        """UserError if the file does not turn an image of `side` pixels into finite logits of its classes."""
        if not self(torch.zeros(1, 1, side, side)).isfinite().all():
            raise UserError(f"{self.path}: gives logits that are not finite; {ADVICE}")


@contextmanager
def denormals_as_zero() -> Iterator[None]:
    """In this thread and here alone, for numbers too small to be normal take up to a hundred times as long.

    ONNX Runtime sees to its own threads; the process's first session that asks for it changes the thread that makes it
    too, and leaves it so: NumPy and everything else would round to zero from then on.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


class OnnxNetwork(ExportedNetwork):
    """Runs in ONNX Runtime."""

    def __init__(
        self, path: Path, model: bytes, classes: int, cost: Mapping[str, Any], folded: Sequence[float]
    ) -> None:
        super().__init__(path, classes, cost, folded)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        try:
            with denormals_as_zero():
                self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's have no common class.
            raise UserError(f"{path}: is no model that ONNX Runtime can run ({shorten([error])}); {ADVICE}") from None

    def run(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            with denormals_as_zero():
                (logits,) = self.session.run([OUTPUT], {INPUT: image})
        except Exception as error:  # As above.
            raise ValueError(error) from None
        return np.asarray(logits, np.float32)


class OpenVinoNetwork(ExportedNetwork):
    """Runs in OpenVINO, which reads the same file."""

    def __init__(
        self, path: Path, model: bytes, classes: int, cost: Mapping[str, Any], folded: Sequence[float]
    ) -> None:
        super().__init__(path, classes, cost, folded)
        try:
            import openvino
        except ImportError:
            raise UserError(
                "--runtime openvino: OpenVINO is not installed; pip install -r requirements-openvino.txt, or leave the "
                "option out"
            ) from None

        core = openvino.Core()
        settings = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            self.compiled = core.compile_model(core.read_model(model), "CPU", settings)
        except Exception as error:  # OpenVINO's are RuntimeErrors, and not all of them.
            raise UserError(f"{path}: is no model that OpenVINO can run ({shorten([error])}); {ADVICE}") from None

    def run(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            return np.array(self.compiled({INPUT: image})[OUTPUT], np.float32)
        except Exception as error:  # As above.
            raise ValueError(error) from None


def open_network(
    path: Path, model: bytes, content: Mapping[str, Any], classes: int, runtime: str = RUNTIMES[0]
) -> ExportedNetwork:
    """The network in an ONNX file that was read, ready to run; UserError if it does not."""
    kind = OnnxNetwork if runtime == RUNTIMES[0] else OpenVinoNetwork
    network = kind(path, model, classes, content["cost"], content["folded_offsets"])
    network.refuse_others(content["input"]["size"] or TRIAL)
    return network.eval()
