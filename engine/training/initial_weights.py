"""A network's first weights: random, ImageNet's, or the blocks that a trained network has too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from networks import build
from networks.contract import SegmentationNetwork
from networks.pretrained import read_file, read_weights
from networks.transfer import copy_blocks
from utils.checkpoint import load_checkpoint
from utils.errors import UserError
from utils.fingerprint import fingerprint_tensors


def build_initialised(
    model: str, classes: int, init: str | None, teacher: SegmentationNetwork | None = None
) -> tuple[SegmentationNetwork, str | None]:
    """A new network, and how many of its parameters begin as what; None where all are random.

    init: as of `TrainingOptions`. The random numbers that are drawn are those without it. UserError if nothing of it
    fits.
    """
    if init is None:
        return build(model, classes), None
    if init == "imagenet":
        source = init
        network, taken = _build_pretrained(model, classes, True)
    else:
        weights, trained = _read(init, teacher)
        source = f"weights {fingerprint_tensors(weights.values())}"
        if trained:
            network = build(model, classes)
            taken = copy_blocks(network, weights)
        else:
            network, taken = _build_pretrained(model, classes, Path(init))
    if not taken:
        raise UserError(f"--init {init}: no block of it fits {model}; give weights of a network with blocks like its")
    total = sum(parameter.numel() for parameter in network.parameters())
    return network, f"{100 * taken // total} % of {model}'s parameters from {source}"


def _read(init: str, teacher: SegmentationNetwork | None) -> tuple[Mapping[str, Tensor], bool]:
    """The weights, and whether they are a network's of this project, not an encoder's from elsewhere."""
    if init == "teacher":
        if teacher is None:
            raise UserError("--init teacher: there is none without distillation; give the path of its checkpoint")
        return teacher.state_dict(), True
    path = Path(init)
    content = read_file(path)
    if isinstance(content, dict) and isinstance(content.get("weights"), dict):
        return load_checkpoint(path)["weights"], True
    return read_weights(path), False


def cases_behind(path: Path) -> set[str]:
    """The cases that a network of this project was trained or chosen on; none for weights from elsewhere."""
    content = read_file(path)
    cases = content.get("cases") if isinstance(content, dict) else None
    return {*cases["train"], *cases["val"]} if isinstance(cases, dict) else set()


def _build_pretrained(model: str, classes: int, pretrained: bool | Path) -> tuple[SegmentationNetwork, int]:
    """The network, and how many of its parameters differ from those of one that draws the same random numbers."""
    with torch.random.fork_rng(devices=[]):
        fresh = build(model, classes).state_dict()
    network = build(model, classes, pretrained)
    loaded = (own.numel() for name, own in network.named_parameters() if not torch.equal(own, fresh[name]))
    return network, sum(loaded)
