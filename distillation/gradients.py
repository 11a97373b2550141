"""How large the gradient of each term of a loss is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

Groups = Mapping[str, Sequence[nn.Parameter]]

SCALE = 2.0**14
"""Factor of a term in its backward pass, so that small gradients are not 0 in float16; a power of two is exact."""


def gradient_norms(terms: Mapping[str, Tensor], groups: Groups) -> dict[str, dict[str, Tensor]]:
    """For each term the L2 norm of its gradient on each group of parameters; the graph is kept.

    A term that doesn't reach a group has norm 0 there. No `.grad` changes.
    """
    return {term: _norms(value, groups, SCALE) for term, value in terms.items()}


def _norms(value: Tensor, groups: Groups, scale: float) -> dict[str, Tensor]:
    parameters = [parameter for group in groups.values() for parameter in group]
    gradients = (
        torch.autograd.grad(scale * value, parameters, retain_graph=True, allow_unused=True)
        if value.requires_grad
        else [None] * len(parameters)
    )
    squares = iter(value.new_zeros(()) if g is None else (g.float() / scale).square().sum() for g in gradients)
    norms = {name: torch.stack([next(squares) for _ in group]).sum().sqrt() for name, group in groups.items()}
    if scale != 1 and not all(norm.isfinite() for norm in norms.values()):
        return _norms(value, groups, 1.0)  # The scaled gradient was too large for float16.
    return norms


def stage_groups(network: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The trained parameters by the module that holds them, two names deep: `encoder.layer1`, `head`."""
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(".".join(name.split(".")[:-1][:2]), []).append(parameter)
    return groups
