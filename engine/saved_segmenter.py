"""The segmenter in a file: a checkpoint of training, weights alone, or an exported network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from datasets.frame import Frame
from datasets.labels import LabelMap
from datasets.raw import MR_LAYOUTS
from engine.device import choose_device
from engine.options import PredictionOptions
from engine.runtime.files import ONNX, SAFETENSORS, TORCH, read_onnx, read_safetensors
from engine.runtime.network import RUNTIMES, open_network
from engine.segmenter import Segmenter
from networks import build, see_blocks
from networks.contract import SegmentationNetwork
from utils.checkpoint import ADVICE, load_checkpoint, shorten
from utils.errors import UserError

LARGEST_OFFSET = 100.0  # Of logits: the grid of decisions ends long before.
DESCRIPTION = ("model", "dataset", "task", "frame", "window", "cases", "config")
"""What a checkpoint must say about its weights."""


def load_segmenter(path: Path, device: torch.device) -> tuple[Segmenter, dict[str, Any]]:
    """The segmenter in a checkpoint or safetensors file, in eval mode on `device`, and the file's content.

    UserError for exported files, which hold no weights to train, to look into or to put on a GPU.
    """
    if path.suffix in (ONNX, TORCH):
        raise UserError(f"{path}: was exported; give the checkpoint, or the {SAFETENSORS} file, of the same network")
    content = read_safetensors(path) if path.suffix == SAFETENSORS else load_checkpoint(path)
    if missing := [key for key in DESCRIPTION if key not in content]:
        raise UserError(
            f"{path}: is not a checkpoint of this project: it holds weights, but no {', '.join(missing)} (its keys are "
            f"{shorten(content)}); {ADVICE}, or these weights to --init of train.py"
        )
    segmenter = describe_segmenter(path, content, lambda classes: build_as_trained(content, classes))
    load_weights(segmenter.network, content["weights"], f"{path}: its weights do not fit {content['model']}")
    segmenter.network.to(device).to(memory_format=segmenter.network.memory_format).eval()
    return segmenter, content


def build_as_trained(content: Mapping[str, Any], classes: int) -> SegmentationNetwork:
    """The network that a checkpoint names, without its weights."""
    return see_blocks(build(content["model"], classes), content["model"], content.get("block"))


def load_exported(path: Path, runtime: str) -> tuple[Segmenter, dict[str, Any]]:
    """The segmenter in an ONNX file, which runs on the CPU, and what the file says; a folded decision is its own."""
    model, content = read_onnx(path)
    content = {**content, "offsets": content["folded_offsets"]}
    segmenter = describe_segmenter(path, content, lambda classes: open_network(path, model, content, classes, runtime))
    return segmenter, content


def describe_segmenter(
    path: Path, content: Mapping[str, Any], make_network: Callable[[int], SegmentationNetwork]
) -> Segmenter:
    """What a file's content says, around the network that is made for its number of classes.

    UserError if it says nothing of the kind.
    """
    try:
        label_map = LabelMap.from_dict(content["task"])
        frame = Frame.from_dict(content["frame"])
        window = None if content["window"] is None else (float(content["window"][0]), float(content["window"][1]))
        # Checkpoints of before there were decisions have no offsets.
        offsets = tuple(map(float, content.get("offsets", ())))
        if not all(abs(offset) <= LARGEST_OFFSET for offset in offsets):
            raise ValueError("its decision has offsets that no grid has")
        if offsets and len(offsets) != len(label_map.classes):
            raise ValueError("its decision is of other classes")
        # Those of before the channel was recorded were trained on the first.
        channel = content.get("channel", 0 if content["dataset"] in ("msd", "heart") else None)
        # And those of before this was recorded are of CT where they have a window and the data set is not known as MR.
        hounsfield = bool(content.get("hounsfield", window is not None and content["dataset"] not in MR_LAYOUTS))
        network = make_network(label_map.num_classes)
    except UserError as error:
        message = str(error).removeprefix(f"{path}: ")
        fault = "" if message != str(error) else "is not a checkpoint of this project: "
        raise UserError(f"{path}: {fault}{message}") from None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        reason = shorten([f"{type(error).__name__}: {error}"])
        raise UserError(f"{path}: is not a checkpoint of this project ({reason}); {ADVICE}") from None
    return Segmenter(
        network, content["model"], content["dataset"], label_map, frame, window, offsets, channel, hounsfield
    )


def load_weights(network: nn.Module, weights: Mapping[str, Tensor], fault: str, advice: str = ADVICE) -> None:
    """Load a state dict; UserError, from `fault` to `advice` with the keys between, where it is another network's."""
    own = network.state_dict()
    keys = {
        "lacking": [key for key in own if key not in weights],
        "unknown": [key for key in weights if key not in own],
        "of another shape": [key for key in own if key in weights and own[key].shape != weights[key].shape],
    }
    if wrong := [f"{len(names)} {kind} ({shorten(names)})" for kind, names in keys.items() if names]:
        raise UserError(f"{fault}: {'; '.join(wrong)}; {advice}")
    network.load_state_dict(weights)


def open_segmenter(options: PredictionOptions) -> tuple[Segmenter, dict[str, Any]]:
    """The segmenter in any file that holds one, on the device and with the decision that the options name."""
    segmenter, content = load_any(options.ckpt, options.device, options.runtime)
    return (replace(segmenter, offsets=()) if options.decision == "argmax" else segmenter), content


def load_any(path: Path, device: str, runtime: str = "onnxruntime") -> tuple[Segmenter, dict[str, Any]]:
    """The segmenter in a checkpoint, safetensors or ONNX file, and the file's content; runtime: of ONNX files."""
    if path.suffix == TORCH:
        raise UserError(f"{path}: is for torch.export.load; give the {ONNX} or {SAFETENSORS} file that lies beside it")
    if path.suffix != ONNX and runtime != RUNTIMES[0]:
        raise UserError(
            f"--runtime {runtime}: {path} runs in PyTorch; leave it out, or give the {ONNX} file of an export"
        )
    if path.suffix != ONNX:
        return load_segmenter(path, choose_device(device))
    if device not in ("auto", "cpu"):
        raise UserError(f"--device {device}: {path} runs on the CPU; leave it out, or give a checkpoint")
    return load_exported(path, runtime)
