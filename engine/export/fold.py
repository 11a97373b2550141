"""The chosen decision as part of the network: its offsets in the last layer's bias."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from networks.contract import SegmentationNetwork
from utils.errors import UserError

SIDE = 64  # pixels of the image that shows which bias is the last
TOLERANCE = 1e-4  # of the largest logit


def fold_decision(network: SegmentationNetwork, offsets: Sequence[float]) -> SegmentationNetwork:
    """A copy whose logits are higher by `offsets`, one for each foreground class; UserError if no bias does that.

    What follows the last layer, as resizing or cropping, leaves a constant as it is. Which layer is the last one is
    found by trying, for a network need not define its layers in the order in which it uses them.
    """
    network = deepcopy(network).eval()
    if not any(offsets):
        return network
    shift = torch.tensor([0.0, *offsets], device=next(network.parameters()).device)
    image = torch.randn(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).to(shift.device)
    with torch.no_grad():
        before = network(image)
        wanted = before + shift[:, None, None]
        for layer in heads(network):
            bias = layer.bias
            layer.bias = nn.Parameter((torch.zeros_like(shift) if bias is None else bias) + shift)
            if differs_by(network(image), wanted) < TOLERANCE:
                return network
            layer.bias = bias
    raise UserError("the decision cannot be folded into any bias of this network; give --decision argmax")


def heads(network: SegmentationNetwork) -> Iterator[nn.Conv2d | nn.ConvTranspose2d]:
    """Convolutions to as many channels as there are classes, the last defined first."""
    for layer in reversed(list(network.modules())):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.out_channels == network.classes:
            yield layer


def differs_by(logits: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest expected logit; infinite for NaN and for other shapes."""
    if logits.shape != expected.shape or not logits.isfinite().all():
        return float("inf")
    return float((logits - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
