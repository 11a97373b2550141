"""Hilbert distillation: from the maps of a block of slices to those of one slice."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillation.affinities import l2_normalise
from distillation.hilbert_curve import hilbert_order
from distillation.layerwise import Layerwise
from distillation.stages import Layers, regressor
from networks.contract import Features, resize
from utils.batch import Batch, middle
from utils.numbers import NonNegative

SMALLEST_ACTIVITY = 1e-6
"""Of the largest: what a cell has at least, so that the whole curve is walked, and evenly where nothing is active."""


class Hilbert(Layerwise):
    """Hilbert distillation (HDCDN): a 3D teacher's map and the student's 2D one as sequences along Hilbert curves.

    D. Qin, H. Wang, Z. Liu, H. Xu, S. Zhou, J. Bu: Hilbert Distillation for Cross-Dimensionality Networks, NeurIPS 2022
    (arXiv 2211.04031):

        weight SmoothL1(n(r(s)), n(t)), mean over batch, positions and channels

    s: the student's map of a slice, [B, Cs, H, W], along a curve through its H W pixels. t: the teacher's map of the
    block around it, [B, Ct, D, h, w], along a curve through all D h w cells, resized linearly to H W positions. r: a
    trained 1x1 convolution; logits are compared without it. n: L2 over the channels.

    variable: both curves are walked in equal steps of the teacher's cumulated activity, so that its active parts are
    long and its background is short. Activity is the mean of t^4 over the channels; on the student's curve that of the
    slice in question. Where it is constant this is the plain form.

    e3 is the layer that the authors compare, 0.1 their weight for CT. Their code computes something else
    (docs/published.md).
    """

    layers: Layers = ("e3",)
    weight: NonNegative = 0.1
    variable: bool = False
    symbol = "Hilbert"
    volumetric = True

    def transform(self, inputs: int, outputs: int) -> nn.Module:
        return regressor(inputs, outputs)

    def forward(self, student: Features, teacher: Features, batch: Batch) -> dict[str, Tensor]:
        assert teacher.block is not None
        terms = {}
        for layer in self.layers:
            s, t = student.stage(layer), teacher.block.stage(layer)
            if layer in self.transforms:
                s = self.transforms[layer](s)
            terms[layer] = self.weight * self.distance(layer, s, t)
        return terms

    def distance(self, layer: str, student: Tensor, teacher: Tensor) -> Tensor:
        """Of [B, C, H, W] and [B, C, D, h, w]."""
        s, t = along_curve(student), along_curve(teacher)
        if self.variable:
            depth = middle(self.teacher_channels.block) // self.teacher_channels.stage(layer).stride
            active = activity(teacher)
            in_slice = resize(active[:, :, min(depth, teacher.shape[2] - 1)], student.shape[2:])
            s, t = (
                sample(values, equal_shares(along_curve(each).squeeze(1), s.shape[2]))
                for values, each in ((s, in_slice), (t, active))
            )
        else:
            t = F.interpolate(t, s.shape[2], mode="linear", align_corners=False)
        return F.smooth_l1_loss(l2_normalise(s, dim=1), l2_normalise(t, dim=1))


def along_curve(maps: Tensor) -> Tensor:
    """[B, C, H, W] or [B, C, D, H, W] -> [B, C, cells] in the order of the Hilbert curve."""
    return maps.flatten(2)[:, :, hilbert_order(tuple(maps.shape[2:]), maps.device)]


def activity(maps: Tensor) -> Tensor:
    """The mean of x^4 over the channels, [B, C, ...] -> [B, 1, ...], relative to the largest value of each image."""
    peak = maps.abs().flatten(1).amax(dim=1).view(-1, *[1] * (maps.ndim - 1))
    power: Tensor = (maps / peak.where(peak > 0, 1)).square().square().mean(dim=1, keepdim=True)
    return power + SMALLEST_ACTIVITY


def equal_shares(activities: Tensor, count: int) -> Tensor:
    """[B, n] -> places [B, count] on 0..n - 1 that divide the cumulated activity into equal parts, at their middles.

    A cell reaches from half a place before its own to half a place after it.
    """
    shares = activities / activities.sum(dim=1, keepdim=True)
    cumulated = shares.cumsum(dim=1)
    wanted = (torch.arange(count, device=shares.device, dtype=shares.dtype) + 0.5) / count
    wanted = wanted.expand(len(shares), -1).contiguous()
    cell = torch.searchsorted(cumulated, wanted).clamp(max=shares.shape[1] - 1)
    share = shares.gather(1, cell)
    inside = (wanted - cumulated.gather(1, cell)) / share + 1
    return (cell + inside - 0.5).clamp(0, shares.shape[1] - 1)


def sample(values: Tensor, places: Tensor) -> Tensor:
    """[B, C, n] at places [B, m] between 0 and n - 1, linearly: [B, C, m]."""
    low = places.floor().long()
    high = (low + 1).clamp(max=values.shape[2] - 1)
    before, after = (values.gather(2, cells[:, None].expand(-1, values.shape[1], -1)) for cells in (low, high))
    return torch.lerp(before, after, (places - low)[:, None])
