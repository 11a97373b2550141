"""Weights of one network for another: the blocks that both have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn


def copy_blocks(network: nn.Module, weights: Mapping[str, Tensor]) -> int:
    """Copy every block of `weights` that the network has too; how many of its parameters that set.

    A block is taken whole, where its tensors have the same names and shapes on both sides, or not at all.
    """
    own = network.state_dict()
    theirs = _blocks(weights)
    taken = {
        name: weights[name]
        for block, names in _blocks(own).items()
        if names == theirs.get(block) and all(own[name].shape == weights[name].shape for name in names)
        for name in names
    }
    network.load_state_dict(taken, strict=False)
    return sum(parameter.numel() for name, parameter in network.named_parameters() if name in taken)


def _blocks(names: Iterable[str]) -> dict[str, set[str]]:
    """The tensors' names by the block that each is part of.

    A block is what a name says up to its first number: `encoder.layer1.0`, with all that is inside. Layers outside
    of anything numbered are one block with their neighbours in the same module, as the stem's `encoder.conv1` and
    `encoder.bn1`.
    """
    blocks: dict[str, set[str]] = {}
    for name in names:
        modules = name.split(".")[:-1]
        first_number = next((i for i, module in enumerate(modules) if module.isdigit()), len(modules) - 2)
        blocks.setdefault(".".join(modules[: first_number + 1]), set()).add(name)
    return blocks
