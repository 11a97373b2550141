"""ImageNet weights for grey images: from torchvision, or from a file on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from utils.errors import UserError


def load_imagenet(encoder: nn.Module, depth: int, source: bool | Path) -> None:
    """Load ImageNet weights into a grey ResNet encoder whose parameters have torchvision's names.

    source: True for torchvision's download (or its cache), a path for a state dict in a file. The RGB stem is
    summed to one channel, which equals feeding the grey image three times. UserError if that fails.
    """
    weights = _read(source) if isinstance(source, Path) else _download(depth)
    where = source if isinstance(source, Path) else "torchvision's weights"
    weights = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    if "conv1.weight" in weights:
        weights["conv1.weight"] = weights["conv1.weight"].sum(dim=1, keepdim=True)
    try:
        encoder.load_state_dict(weights)
    except (RuntimeError, TypeError):
        raise UserError(
            f"{where}: does not fit resnet{depth}; give a state dict of torchvision's resnet{depth}"
        ) from None


def _download(depth: int) -> dict[str, Tensor]:
    weights = torchvision.models.get_model_weights(f"resnet{depth}").IMAGENET1K_V1
    try:
        state: dict[str, Tensor] = dict(weights.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{weights.url}: cannot be downloaded ({error}); download it where there is internet and give "
            "the file's path as the pretrained weights, or train without them"
        ) from None
    return state


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a state dict of torchvision's ResNet")
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: cannot be read as PyTorch weights ({reason})") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: holds no state dict; give a state dict of torchvision's ResNet")
    return state
