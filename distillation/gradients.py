"""How strongly each term of a loss pulls at a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

Groups = Mapping[str, Sequence[nn.Parameter]]


def gradient_norms(terms: Mapping[str, Tensor], groups: Groups) -> dict[str, dict[str, Tensor]]:
    """For each term the L2 norm of its gradient on each group of parameters; the graph is kept.

    A term that doesn't reach a group has norm 0 there. No `.grad` changes.
    """
    parameters = [parameter for group in groups.values() for parameter in group]
    norms = {}
    for term, value in terms.items():
        found = (
            torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            if value.requires_grad
            else [None] * len(parameters)
        )
        of_each = iter(value.new_zeros(()) if g is None else g.float().square().sum() for g in found)
        norms[term] = {name: torch.stack([next(of_each) for _ in group]).sum().sqrt() for name, group in groups.items()}
    return norms


def stage_groups(network: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The trained parameters by the module that holds them, two names deep: `encoder.layer1`, `head`."""
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(".".join(name.split(".")[:-1][:2]), []).append(parameter)
    return groups
