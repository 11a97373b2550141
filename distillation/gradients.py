"""How large the gradient of each term of a loss is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from utils.across import add_up

Groups = Mapping[str, Sequence[nn.Parameter]]

SCALE = 2.0**14
"""Factor of a term in its backward pass, so that small gradients are not 0 in float16; a power of two is exact."""


def gradient_norms(terms: Mapping[str, Tensor], groups: Groups) -> dict[str, dict[str, Tensor]]:
    """For each term the L2 norm of its gradient on each group of parameters; the graph is kept.

    A term that doesn't reach a group has norm 0 there. No `.grad` changes. Where several processes share the batch,
    `terms` are of all of it, and the parameters the network's.
    """
    return {term: _norms(value, groups, SCALE) for term, value in terms.items()}


def _norms(value: Tensor, groups: Groups, scale: float) -> dict[str, Tensor]:
    parameters = [parameter for group in groups.values() for parameter in group]
    gradients = (
        torch.autograd.grad(scale * value, parameters, retain_graph=True, allow_unused=True)
        if value.requires_grad
        else [None] * len(parameters)
    )
    add_up([gradient for gradient in gradients if gradient is not None])
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


class GradientShare(nn.Module):
    """How large the distillation's gradient on the student is, in that of the segmentation loss.

    The ratio of their L2 norms over all of the student's parameters, mean over the first `STEPS` steps of a training
    ("start") and over its last ones ("end").
    """

    STEPS = 4

    def __init__(self) -> None:
        super().__init__()
        self.measured: dict[str, list[float]] = {"start": [], "end": []}

    def forward(
        self,
        segmentation: Mapping[str, Tensor],
        terms: Mapping[str, Tensor],
        student: nn.Module,
        step: int,
        steps: int,
    ) -> None:
        """Measure in a step that is one of the first or the last of `steps`."""
        places = [name for name, near in (("start", step), ("end", steps - 1 - step)) if 0 <= near < self.STEPS]
        if not places:
            return
        losses = {"segmentation": segmentation, "distillation": terms}
        sums = {name: torch.stack(list(parts.values())).sum() for name, parts in losses.items()}
        everything = {"all": [parameter for parameter in student.parameters() if parameter.requires_grad]}
        norms = {name: float(groups["all"]) for name, groups in gradient_norms(sums, everything).items()}
        if norms["segmentation"] > 0:
            for place in places:
                self.measured[place].append(norms["distillation"] / norms["segmentation"])

    def shares(self) -> dict[str, float]:
        """The means, "start" and "end", as far as they were measured."""
        return {place: sum(values) / len(values) for place, values in self.measured.items() if values}

    def get_extra_state(self) -> dict[str, Any]:
        return {"measured": {place: list(values) for place, values in self.measured.items()}}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.measured = {place: list(values) for place, values in state["measured"].items()}
