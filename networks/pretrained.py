"""ImageNet weights for grey images: from torchvision, or from a file on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torchvision
from torch import Tensor, nn

from utils.checkpoint import find_weights, read_tensors
from utils.errors import UserError

EXPORTED = (".onnx", ".pt2", ".safetensors")


def load_imagenet(encoder: nn.Module, model: str, source: bool | Path, unused: tuple[str, ...] = ()) -> None:
    """Load ImageNet weights into a grey encoder whose parameters have the names of torchvision's `model`.

    source: True for torchvision's download (or its cache), a path for a state dict in a file.
    unused: the beginnings of the names that the encoder leaves out. UserError if that fails.
    """
    weights = read_weights(source) if isinstance(source, Path) else _download(model)
    where = source if isinstance(source, Path) else "torchvision's weights"
    load_grey(encoder, {n: v for n, v in weights.items() if not n.startswith(unused)}, where, f"torchvision's {model}")


def refuse_imagenet(pretrained: bool | Path, name: str, instead: str) -> None:
    """UserError if pretrained, for a network of which there are no ImageNet weights."""
    if pretrained:
        raise UserError(f"{name} has no ImageNet weights: train it without them, or choose {instead}")


def load_grey(encoder: nn.Module, weights: dict[str, Tensor], where: Path | str, model: str) -> None:
    """Load the weights of an RGB `model` into its grey twin; UserError if they don't fit.

    The RGB stem is summed to one channel, which equals feeding the grey image three times. `where` is where the
    weights are from, for the message.
    """
    own = encoder.state_dict()
    for name, value in weights.items():
        if value.ndim == 4 and value.shape[1] == 3 and name in own and own[name].shape[1] == 1:
            weights[name] = value.sum(dim=1, keepdim=True)
    try:
        encoder.load_state_dict(weights)
    except (RuntimeError, TypeError, KeyError):
        raise UserError(f"{where}: does not fit {model}; give a state dict of it") from None


def _download(model: str) -> dict[str, Tensor]:
    weights = torchvision.models.get_model_weights(model).IMAGENET1K_V1
    try:
        state: dict[str, Tensor] = dict(weights.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{weights.url}: cannot be downloaded ({error}); download it where there is internet and give "
            "the file's path as the pretrained weights, or train without them"
        ) from None
    return state


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, also one level down or of a wrapped network; UserError if there is none."""
    state = find_weights(read_file(path))
    if state is None:
        raise UserError(f"{path}: holds no state dict; give a state dict of the encoder")
    return state


def read_file(path: Path) -> Any:
    """What PyTorch saved in a file, whatever that is; UserError if it cannot be read."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a state dict of the encoder, or a checkpoint")
    if path.suffix in EXPORTED:
        raise UserError(
            f"{path}: was exported, to be used and not to be trained; give the checkpoint that it was made of"
        )
    return read_tensors(path)
