"""What nnU-Net's own package computes: run by a test in a Python that has it, and never in the project's own.

    PYTHON tests/networks/nnunet_reference.py FOLDER

For each NAME.json in FOLDER, {"class", "kwargs", "size"}, writes NAME.pt: weights, image, the encoder's stages, logits.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 3
Description = dict[str, Any]


def fill(network: nn.Module) -> None:
    """Set every parameter by a closed formula of its place among the sorted names."""
    for k, (_, parameter) in enumerate(sorted(network.named_parameters())):
        values = torch.arange(parameter.numel(), dtype=torch.float64).mul(1.7).add(k).sin().mul(1.5)
        parameter.data.copy_(values.reshape(parameter.shape))


def picture(height: int, width: int) -> Tensor:
    """[2, 1, height, width], by a closed formula."""
    values = torch.arange(2 * height * width, dtype=torch.float64)
    return (values * 0.37).cos().add((values * 0.011).sin()).float().reshape(2, 1, height, width)


def main(folder: Path) -> None:
    from dynamic_network_architectures.architectures import unet

    for path in sorted(folder.glob("*.json")):
        wanted: Description = json.loads(path.read_text())
        network = getattr(unet, wanted["class"])(
            input_channels=1,
            num_classes=CLASSES,
            conv_op=nn.Conv2d,
            norm_op=nn.InstanceNorm2d,
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
            **wanted["kwargs"],
        ).eval()
        fill(network)
        image = picture(*wanted["size"])
        with torch.no_grad():
            result = {"image": image, "stages": network.encoder(image), "logits": network(image)}
        torch.save({"weights": network.state_dict(), **result}, path.with_suffix(".pt"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
