"""Where a slice of a frame lies in what nnU-Net's network sees: its axes, its pixels' size, and the padding around."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from engine.nnunet.plan import Plan
from engine.nnunet.resampling import apply, importance, map_weights, spline_weights, tile_starts
from networks.nnunet import Pair
from utils.errors import UserError
from utils.stored_as import StoredAs

OURS = {"S": (0, 1), "I": (0, -1), "P": (1, 1), "A": (1, -1), "L": (2, 1), "R": (2, -1)}
"""Where an axis runs to -> (axis of [Z, Y, X], direction)."""
ANISOTROPIC = 3
"""Above this ratio of spacings, nnU-Net resamples slices one by one, and not volumes."""


class Placement(NamedTuple):
    """swapped: whether nnU-Net's rows are our columns; flips: axes of [h, w] that run the other way there.

    framed, resampled, padded: (rows, columns) in nnU-Net's order of the slice, of the same at the plan's spacing, and
    of that with zeros around it, of which `start` come first. tiles: where the parts of the plan's patch size begin
    that the network sees, T of them. one_by_one: whether slices are resampled by themselves.
    """

    swapped: bool
    flips: tuple[int, ...]
    framed: Pair
    resampled: Pair
    padded: Pair
    start: Pair
    tiles: tuple[Pair, ...]
    one_by_one: bool

    def to_plane(self, x: Tensor) -> Tensor:
        """[..., h, w] with our axes -> with nnU-Net's."""
        turned = torch.flip(x, [axis - 2 for axis in self.flips])
        return turned.transpose(-1, -2) if self.swapped else turned

    def from_plane(self, x: Tensor) -> Tensor:
        """What `to_plane` had."""
        turned = x.transpose(-1, -2) if self.swapped else x
        return torch.flip(turned, [axis - 2 for axis in self.flips])

    def images(self, values: Tensor, plan: Plan) -> Tensor:
        """A slice in physical units, [1, h, w] -> what the network sees of it, [T, 1, rows, columns].

        It is normalised, brought to the plan's spacing, and padded with zeros to the size of a patch at least.
        """
        plane = (self.to_plane(values).clamp(plan.low, plan.high) - plan.mean) / plan.std
        if self.resampled != self.framed:
            low, high = (float(plane.min()), float(plane.max())) if self.one_by_one else plan.bounds
            sizes = zip(self.framed, self.resampled, strict=True)
            rows, columns = (spline_weights(*each, plan.image_order) for each in sizes)
            plane = apply(rows, columns, plane).clamp(low, high)
        padded = plane.new_zeros((1, *self.padded))
        padded[_window(self.start, self.resampled)] = plane
        return torch.stack([padded[_window(tile, plan.patch)] for tile in self.tiles])

    def logits(self, maps: Tensor, plan: Plan) -> Tensor:
        """Logits of the tiles, [T, C, rows, columns] -> [C, h, w] in the frame."""
        whole = maps[0]
        if len(self.tiles) > 1:
            rows, columns = (importance(side).to(maps.device, torch.float32) for side in plan.patch)
            bell = rows[:, None] * columns
            whole, counted = (maps.new_zeros((channels, *self.padded)) for channels in (maps.shape[1], 1))
            for tile, logits in zip(self.tiles, maps, strict=True):
                whole[_window(tile, plan.patch)] += bell * logits
                counted[_window(tile, plan.patch)] += bell
            whole /= counted
        inside = whole[_window(self.start, self.resampled)]
        if self.resampled != self.framed:
            sizes = zip(self.resampled, self.framed, strict=True)
            rows, columns = (spline_weights(*each, plan.logits_order) for each in sizes)
            inside = apply(rows, columns, inside)
        return self.from_plane(inside)

    def stage(self, maps: Tensor, stride: int, plan: Plan) -> Tensor:
        """A stage's maps of the tiles, [T, C, ...] -> [C, h / stride, w / stride] of the frame, rounded up."""
        cells = [-(-length // stride) for length in self.framed]
        whole, counted = maps.new_zeros((maps.shape[1], *cells)), maps.new_zeros(cells)
        for tile, values in zip(self.tiles, maps, strict=True):
            weights = []
            for axis, count in enumerate(cells):
                patch, start = plan.patch[axis], self.start[axis] - tile[axis]
                here = map_weights(count, self.resampled[axis], start, patch, values.shape[1 + axis])
                gain = map_weights(count, self.resampled[axis], start, patch, patch) @ importance(patch)
                weights.append(here * gain[:, None])
            rows, columns = weights
            whole += apply(rows, columns, values)
            counted += apply(rows.sum(dim=1, keepdim=True), columns.sum(dim=1, keepdim=True), whole.new_ones(1, 1))
        return self.from_plane(whole / counted)


def _window(start: Pair, size: Pair) -> tuple[slice, ...]:
    """Of maps [C, rows, columns]."""
    return (slice(None), *(slice(first, first + length) for first, length in zip(start, size, strict=True)))


@lru_cache(1024)
def place(plan: Plan, origin: StoredAs, shape: Pair) -> Placement:
    """Of a slice [h, w] whose pixels have the origin's spacing; UserError where nnU-Net's slices are not axial."""
    (slicing, _), *plane = _axes(plan, origin.orientation)
    if slicing != 0:
        raise UserError(
            f"a source with axes {origin.orientation}: nnU-Net's slices are not axial there, so its network cannot "
            "teach on axial slices; give another teacher"
        )
    swapped = plane[0][0] == 2
    framed = (shape[1], shape[0]) if swapped else shape
    spacing = tuple(origin.spacing[axis] for axis, _ in plane)
    resampled = _pair(round(mm / new * n) for mm, new, n in zip(spacing, plan.spacing, framed, strict=True))
    padded = _pair(map(max, resampled, plan.patch))
    return Placement(
        swapped=swapped,
        flips=tuple(sorted(axis - 1 for axis, direction in plane if direction < 0)),
        framed=framed,
        resampled=resampled,
        padded=padded,
        start=_pair((outer - inner) // 2 for outer, inner in zip(padded, resampled, strict=True)),
        tiles=tuple(map(_pair, product(*map(tile_starts, padded, plan.patch)))),
        one_by_one=_one_by_one(plan, origin.spacing[0], spacing),
    )


def _axes(plan: Plan, orientation: str) -> list[tuple[int, int]]:
    """Our axis and its direction for each axis of nnU-Net's arrays: slices, rows, columns.

    Its readers give a file's axes from last to first; the plan says in which order it takes them.
    """
    codes = "RAS" if plan.reorients else orientation
    return [OURS[codes[2 - axis]] for axis in plan.transpose]


def _one_by_one(plan: Plan, slices: float, plane: tuple[float, ...]) -> bool:
    if plan.separate_z is not None:
        return plan.separate_z
    return any(
        max(spacing) / min(spacing) > ANISOTROPIC and spacing.count(max(spacing)) == 1
        for spacing in ((slices, *plane), (slices, *plan.spacing))
    )


def _pair(values: Iterable[int]) -> Pair:
    rows, columns = values
    return rows, columns
